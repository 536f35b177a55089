"""The meta data of a packed model, checked against the network that they describe.

A file may leave any of them out; what it has must fit. ``docs/packed.md`` lists them.
"""

from __future__ import annotations

import json
import math
from typing import Any

from bhvit_seg.errors import UserError

COLOR_TYPES = ('color', 'unchanged')


def parse_meta(content: bytes, path: str, classes: int, channels: int,
               align_corners: bool) -> dict[str, Any]:
    """Return the meta data of a file.

    Args:
        content: JSON in UTF-8.
        path: The file, for errors.
        classes: Classes of the network.
        channels: Channels of its images.
        align_corners: How it resizes logits.

    Raises:
        UserError: They are not JSON, or contradict the network or themselves.
    """
    try:
        meta = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f'the packed model {path} has meta data that are not JSON ({error}): '
                        'export it again with bhvit-seg export') from error
    for name, expected, fits in (
            ('', 'an object', isinstance(meta, dict)),
            *_expectations(meta if isinstance(meta, dict) else {}, classes, channels,
                           align_corners)):
        if not fits:
            value = json.dumps(meta.get(name) if name else meta, ensure_ascii=False)
            shown = value if len(value) < 100 else f'{value[:97]}...'
            raise UserError(f'the packed model {path} has the {name or "meta data"} {shown}, and '
                            f'should have {expected}: export it again with bhvit-seg export')
    return meta


def _expectations(meta: dict[str, Any], classes: int, channels: int, align_corners: bool):
    """Yield the name of each value, what is expected of it, and whether it is so."""
    checks = {
        'name': ('a text', lambda value: isinstance(value, str)),
        'classes': (f'{classes} texts, one for each class of the head',
                    lambda value: _is_list(value, classes, _is_text)),
        'palette': (f'{classes} colours [red, green, blue] from 0 to 255, one for each class of '
                    'the head', lambda value: _is_list(value, classes, _is_colour)),
        'window': ('null, or height and width in pixels',
                   lambda value: value is None or _is_list(value, 2, _is_side)),
        'ground_sampling_distance': ('null, or metres a pixel', lambda value: value is None or (
            _is_number(value) and 0 < value < math.inf)),
        'channels': (f'the network\'s {channels}',
                     lambda value: _is_whole(value) and value == channels),
        'channel_order': (f'{channels} texts, one for each channel',
                          lambda value: _is_list(value, channels, _is_text)),
        'color_type': (f'one of {", ".join(COLOR_TYPES)}', lambda value: value in COLOR_TYPES),
        'test_scale': ('null, or scale (two sides in pixels) and keep_ratio (true or false)',
                       lambda value: value is None or _is_scale(value)),
        'align_corners': (f'the network\'s {json.dumps(align_corners)}',
                          lambda value: value is align_corners),
        'lidar': (f'null, or channels (null or fewer than {channels}), fill and nodata',
                  lambda value: value is None or _is_lidar(value, channels)),
    }
    for name, (expected, fits) in checks.items():
        if name in meta:
            yield name, expected, fits(meta[name])


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_list(value: Any, length: int, fits) -> bool:
    return isinstance(value, list) and len(value) == length and all(map(fits, value))


def _is_side(value: Any) -> bool:
    return _is_whole(value) and value > 0


def _is_colour(value: Any) -> bool:
    return _is_list(value, 3, lambda part: _is_whole(part) and 0 <= part <= 255)


def _is_scale(value: Any) -> bool:
    return (isinstance(value, dict) and _is_list(value.get('scale'), 2, _is_side)
            and isinstance(value.get('keep_ratio'), bool))


def _is_lidar(value: Any, channels: int) -> bool:
    if not isinstance(value, dict) or value.keys() != {'channels', 'fill', 'nodata'}:
        return False
    chosen, fill, nodata = value['channels'], value['fill'], value['nodata']
    return (_is_number(fill) and math.isfinite(fill) and (nodata is None or _is_number(nodata))
            and (chosen is None or isinstance(chosen, list) and 0 < len(chosen) < channels
                 and all(_is_whole(channel) and channel >= 0 for channel in chosen)))
