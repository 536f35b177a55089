"""The optional meta data of a packed model (``docs/packed.md``), compared with its network."""

from __future__ import annotations

import json
from typing import Any

from bhvit_seg.errors import UserError


def decode_meta(content: bytes, path: str) -> dict[str, Any]:
    """Return the meta data, or raise a UserError if they are not a JSON object."""
    try:
        meta = json.loads(content.decode())
        if isinstance(meta, dict):
            return meta
        reason = f'a {type(meta).__name__}'
    except (ValueError, RecursionError) as error:
        reason = str(error)
    raise UserError(f'the packed model {path} has meta data that are not a JSON object ({reason}): '
                    'export it again with bhvit-seg export')


def parse_meta(content: bytes, path: str, classes: int, channels: int,
               align_corners: bool) -> dict[str, Any]:
    """Return the meta data, or raise a UserError if they contradict the network."""
    meta = decode_meta(content, path)
    found = {name: len(meta[name]) if isinstance(meta[name], list) else meta[name]
             for name in ('classes', 'palette', 'channel_order', 'channels', 'align_corners')
             if name in meta}
    expected = {'classes': classes, 'palette': classes, 'channel_order': channels,
                'channels': channels, 'align_corners': align_corners}
    for name, value in found.items():
        if value != expected[name]:
            raise UserError(f'the packed model {path} has the {name} {meta[name]!r:.100}, and its '
                            f'network {expected[name]}: export it again with bhvit-seg export')
    return meta
