"""Freezing: what is picked, what holding means, and what is watched.

That a resumed run freezes what an uninterrupted one does is in tests/training/test_recipe.py.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bhvit_seg.models.weights import load_checkpoint_safely
from bhvit_seg.training.hooks.weight_freezing import OscillationFreezingHook, WatchedWeight

from .toy import SCALE, Record, Script, script, train

ITERATIONS = 40
NAMES = ('first', 'second')


def binary(weight: torch.Tensor) -> np.ndarray:
    """The signs of rows of weights relative to their mean, in double precision."""
    rows = weight.detach().double().numpy().reshape(len(weight), -1)
    return rows >= rows.mean(1, keepdims=True)


def watched_after(seed: int, shape=(4, 7), steps: int = 12) -> tuple[WatchedWeight, list]:
    """A weight that jumped over its threshold again and again, and its signs after each step."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator) * SCALE
    watched = WatchedWeight(weight)
    seen = [binary(weight)]
    for _ in range(steps):
        weight += torch.randn(shape, generator=generator) * SCALE
        watched.count()
        seen.append(binary(weight))
    return watched, seen


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), limit=st.integers(1, 6))
def test_what_flips_often_is_frozen_at_its_usual_sign(seed, limit):
    watched, seen = watched_after(seed)
    flips = np.sum([a != b for a, b in zip(seen, seen[1:])], axis=0)
    usual = 2 * np.sum(seen[1:], axis=0) >= len(seen) - 1
    watched.freeze(limit)
    frozen = watched.frozen.numpy()
    full = (flips > limit).all(1)
    assert np.array_equal(frozen[~full], (flips > limit)[~full])
    assert (frozen[full].sum(1) == frozen.shape[1] - 1).all()
    assert np.array_equal(binary(watched.weight)[frozen], usual[frozen])
    assert not watched.flips.any() and not watched.votes.any()


def freezing(**changes) -> OscillationFreezingHook:
    return OscillationFreezingHook(**{'threshold': (0.3, 0.1), 'begin': 0.2, 'window': 8,
                                      **changes})


def state_of(work_dir, iteration: int) -> dict | None:
    return load_checkpoint_safely(work_dir / f'iter_{iteration}.pth').get('oscillation_freezing')


def test_training_freezes_after_each_window(tmp_path):
    walk, record = script(ITERATIONS), Record()
    train(tmp_path, ITERATIONS, [Script(walk), freezing(), record])
    # Watched from the weights after iteration 9 on: windows end at iterations 17, 25 and 33.
    assert all(torch.equal(record.weights[i][f'{n}.weight'], walk[i][n])
               for i in range(16) for n in NAMES)
    log, = tmp_path.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    shares = {line['step']: line['weights/frozen'] for line in lines if 'weights/frozen' in line}
    assert list(shares) == [17, 25, 33] and 0 < shares[17] <= shares[25] <= shares[33] < 1
    assert state_of(tmp_path, 40)['steps'] == 7
    for name in NAMES:
        seen = [binary(walk[i][name]) for i in range(8, 17)]
        flips = np.sum([a != b for a, b in zip(seen, seen[1:])], axis=0)
        picked = flips > max(8 * freezing().threshold_at(17 / 40), 1)
        assert picked.any() and not picked.all(1).any()
        usual = 2 * np.sum(seen[1:], axis=0) >= 8
        for i in range(16, ITERATIONS):
            frozen = binary(record.weights[i][f'{name}.weight'])[picked]
            assert np.array_equal(frozen, usual[picked])
    # From given weights counting begins again.
    train(tmp_path / 'new', 4, [freezing(begin=1)], load_from=str(tmp_path / 'iter_40.pth'))
    assert state_of(tmp_path / 'new', 4) is None
