"""Helps ``gpu_check.sh``: how long a training may be, and its weights alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import torch

from bhvit_seg.fileio import write_atomically
from bhvit_seg.models.weights import load_checkpoint_safely, state_dict_of


def iterations(work_dir: str, seconds: str) -> None:
    """Print how many iterations take that long, by the latest times that a training logged."""
    log, = Path(work_dir).glob('*/vis_data/scalars.json')
    times = [line['time'] for line in map(json.loads, log.read_text().splitlines())
             if 'time' in line and 'loss' in line]
    print(max(20, int(float(seconds) / min(times[-3:]))))


def weights(work_dir: str, out: str) -> None:
    """Write the weights of the last checkpoint, without a teacher's and the optimizer's state."""
    own = Path(work_dir) / 'backbone.pth'
    last = own if own.exists() else Path((Path(work_dir) / 'last_checkpoint').read_text().strip())
    content = load_checkpoint_safely(last)
    state = {name: value for name, value in state_dict_of(content).items()
             if not name.startswith('teacher.')}
    meta = content.get('meta') or {}
    with write_atomically(out) as partial:
        torch.save({'state_dict': state, 'meta': {
            key: meta[key] for key in ('dataset_meta', 'iter') if key in meta}}, partial)
    print(f'{out}: weights of {last.name}')


if __name__ == '__main__':
    {'iterations': iterations, 'weights': weights}[sys.argv[1]](*sys.argv[2:])
