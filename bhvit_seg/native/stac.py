"""Shipped models as items of the STAC Machine Learning Model extension.

Source: https://github.com/stac-extensions/mlm, version 1.4.0 with STAC 1.1.0.
"""

from __future__ import annotations

import re
from typing import Any

from bhvit_seg import __version__
from bhvit_seg.native.file_format import read_packed
from bhvit_seg.shipped import find_model, shipped_models

STAC = '1.1.0'
MLM, CLASSIFICATION, FILE = (
    f'https://stac-extensions.github.io/{name}/schema.json'
    for name in ('mlm/v1.4.0', 'classification/v1.1.0', 'file/v2.1.0'))
TASK = ['semantic-segmentation']


def model_item(name: str) -> dict[str, Any]:
    """Return the item of a shipped model, JSON; a UserError if there is none.

    It names no place and no time, where and when the model may be used is not known; links are
    relative to the folder of the model.
    """
    path = find_model(name)
    entry, meta = shipped_models()[name], read_packed(path).meta
    sides = list(entry['window'] or (-1, -1))
    distance = entry['ground_sampling_distance']
    classes = [{'value': value, 'name': re.sub(r'[^\w-]+', '-', label, flags=re.ASCII),
                'description': label, 'color_hint': bytes(colour).hex().upper()}
               for value, (label, colour) in enumerate(zip(meta['classes'], meta['palette']))]
    # MLM wants the bands of its input in the properties, STAC then also in an asset.
    bands = [{'name': band} for band in meta['channel_order']]
    return {
        'type': 'Feature', 'stac_version': STAC, 'stac_extensions': [MLM, CLASSIFICATION, FILE],
        'id': name, 'geometry': None,
        'properties': {
            'title': entry['title'],
            'description': f'Trained on {entry["data"]} ({entry["licence"]}; '
                           f'{"; ".join(entry["attribution"])}).',
            'license': 'other', 'datetime': None,
            'start_datetime': '1900-01-01T00:00:00Z', 'end_datetime': '9999-12-31T23:59:59Z',
            **({} if distance is None else {'gsd': distance}),
            'bands': bands, 'mlm:name': name, 'mlm:tasks': TASK, 'mlm:architecture': 'BHViT',
            'mlm:framework': 'bhvit_seg', 'mlm:framework_version': __version__,
            'mlm:pretrained': True, 'mlm:accelerator': None,
            'mlm:input': [{
                'name': 'image', 'bands': meta['channel_order'],
                'description': 'Images may have any size; this is the training crop.',
                'input': {'shape': [*sides, meta['channels']], 'data_type': 'uint8',
                          'dim_order': ['height', 'width', 'channel']}}],
            'mlm:output': [{
                'name': 'labels', 'tasks': TASK, 'classification:classes': classes,
                'result': {'shape': sides, 'data_type': 'uint8',
                           'dim_order': ['height', 'width']}}],
        },
        'links': [],
        'assets': {
            'model': {
                'href': f'./{path.name}', 'title': 'Packed model', 'roles': ['mlm:model'],
                'type': 'application/octet-stream', 'bands': bands,
                'mlm:artifact_type': 'bhvit_seg.packed',
                'file:size': entry['bytes'],
                'file:checksum': f'1220{entry["sha256"]}'},  # multihash: SHA-256 of 32 bytes
            'card': {'href': f'./{name}.md', 'title': 'Model card', 'type': 'text/markdown',
                     'roles': ['metadata']},
        },
    }
