"""The optional meta data of a packed model (``docs/packed.md``), checked against its network."""

from __future__ import annotations

import json
import math
from typing import Any, Callable

from bhvit_seg.errors import UserError

COLOR_TYPES = ('color', 'unchanged')


def decode_meta(content: bytes, path: str) -> Any:
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f'the packed model {path} has meta data that are not JSON ({error}): '
                        'export it again with bhvit-seg export') from error


def parse_meta(content: bytes, path: str, classes: int, channels: int,
               align_corners: bool) -> dict[str, Any]:
    """Return the meta data, or raise a UserError if they contradict the network or themselves."""
    meta = decode_meta(content, path)
    each = f'{classes} %s, one for each class of the head'
    # What is expected of each value, and whether it is so.
    expectations: dict[str, tuple[str, Callable[[Any], bool]]] = {
        'name': ('a text', _is_text),
        'classes': (each % 'texts', lambda value: _is_list(value, classes, _is_text)),
        'palette': (each % 'colours [red, green, blue] from 0 to 255',
                    lambda value: _is_list(value, classes, _is_colour)),
        'window': ('null, or height and width in pixels',
                   lambda value: value is None or _is_list(value, 2, _is_side)),
        'ground_sampling_distance': ('null, or metres a pixel', lambda value: value is None or (
            _is_number(value) and 0 < value < math.inf)),
        'channels': (f'the network\'s {channels}',
                     lambda value: _is_number(value, int) and value == channels),
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
    if not isinstance(meta, dict):
        meta = {'meta data': meta}
        expectations = {'meta data': ('an object', lambda value: False)}
    for name, (expected, fits) in expectations.items():
        if name in meta and not fits(meta[name]):
            value = json.dumps(meta[name], ensure_ascii=False)
            shown = value if len(value) < 100 else f'{value[:97]}...'
            raise UserError(f'the packed model {path} has the {name} {shown}, and should have '
                            f'{expected}: export it again with bhvit-seg export')
    return meta


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any, kind: type | tuple[type, ...] = (int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_side(value: Any) -> bool:
    return _is_number(value, int) and value > 0


def _is_list(value: Any, length: int, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and len(value) == length and all(map(fits, value))


def _is_colour(value: Any) -> bool:
    return _is_list(value, 3, lambda part: _is_number(part, int) and 0 <= part <= 255)


def _is_scale(value: Any) -> bool:
    return (isinstance(value, dict) and _is_list(value.get('scale'), 2, _is_side)
            and isinstance(value.get('keep_ratio'), bool))


def _is_lidar(value: Any, channels: int) -> bool:
    if not isinstance(value, dict) or value.keys() != {'channels', 'fill', 'nodata'}:
        return False
    chosen, fill, nodata = value['channels'], value['fill'], value['nodata']
    return (_is_number(fill) and math.isfinite(fill) and (nodata is None or _is_number(nodata))
            and (chosen is None or isinstance(chosen, list) and 0 < len(chosen) < channels
                 and all(_is_number(channel, int) and channel >= 0 for channel in chosen)))
