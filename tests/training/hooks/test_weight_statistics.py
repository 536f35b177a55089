"""The statistics against NumPy on weights that follow a script.

That a resumed run records what an uninterrupted one does is in tests/training/test_recipe.py.
"""

import json

import numpy as np
import pytest
import torch

from bhvit_seg.training.hooks.weight_statistics import (
    FILE,
    PICTURE,
    SIDE,
    WeightStatisticsHook,
    bin_width,
    count_bins,
)

from .toy import SCALE, Script, Toy, script, train

ITERATIONS, INTERVAL, NEAR = 12, 3, SCALE / 4
SIZES = {'first': 30, 'second': 15}
WALK = script(ITERATIONS)


def statistics(**changes) -> WeightStatisticsHook:
    return WeightStatisticsHook(**{'interval': INTERVAL, 'figure_interval': 6, 'near_zero': NEAR,
                                   **changes})


def centred(weight: torch.Tensor) -> np.ndarray:
    rows = weight.detach().double().numpy().reshape(len(weight), -1)
    return rows - rows.mean(1, keepdims=True)


def looks() -> list[dict]:
    """What the looks at the script have to find."""
    found = []
    before = {name: getattr(Toy(), name).weight for name in SIZES}
    for iteration in range(INTERVAL, ITERATIONS + 1, INTERVAL):
        now = WALK[iteration - 1]
        found.append(dict(
            iteration=iteration,
            flipped=[int(((centred(now[n]) >= 0) != (centred(before[n]) >= 0)).sum())
                     for n in SIZES],
            near_zero=[int((np.abs(centred(now[n])) < NEAR).sum()) for n in SIZES]))
        before = now
    return found


def record_of(work_dir) -> dict:
    return json.loads((work_dir / FILE).read_text())


def test_record_log_and_picture_are_those_of_the_weights(tmp_path):
    train(tmp_path, ITERATIONS, [Script(WALK), statistics()])
    record = record_of(tmp_path)
    assert record['layers'] == SIZES
    assert record['looks'] == looks()
    assert sum(sum(look['flipped']) for look in looks()) > 20
    assert [histogram['iteration'] for histogram in record['histograms']] == [6, 12]
    for histogram in record['histograms']:
        weights = np.concatenate([w.flatten() for w in WALK[histogram['iteration'] - 1].values()])
        edges = np.arange(-SIDE, SIDE + 1) * histogram['bin_width']
        assert histogram['counts'] == np.histogram(weights, edges)[0].tolist()
        assert 16 <= np.abs(weights).mean() / histogram['bin_width'] < 32
    # What mmengine's visualizer gets.
    log, = tmp_path.glob('*/vis_data/scalars.json')
    lines = {line['step']: line for line in map(json.loads, log.read_text().splitlines())
             if 'weights/flip_ratio' in line}
    assert list(lines) == [3, 6, 9, 12]
    for look in looks():
        for name, counts in (('flip_ratio', look['flipped']), ('near_zero', look['near_zero'])):
            line = {key[len('weights/'):]: value for key, value in lines[look['iteration']].items()}
            assert line[name] == pytest.approx(sum(counts) / 45)
            for (layer, size), count in zip(SIZES.items(), counts):
                assert line[f'{name}/{layer}'] == pytest.approx(count / size)
    assert (tmp_path / PICTURE).read_bytes().startswith(b'\x89PNG')


def test_bins_have_exact_edges_and_hold_what_lies_beyond():
    width = 2 ** -5
    weight = torch.tensor([0.0, width, -width, 3.5 * width, -3.5 * width, 1e6, -1e6])
    counts = count_bins(weight, width)
    where = {0: 1, 1: 1, -1: 1, 3: 1, -4: 1, SIDE - 1: 1, -SIDE: 1}
    assert {int(i) - SIDE: int(counts[i]) for i in counts.nonzero()} == where
    for scale in (1e-6, 1.0, 300.0):
        assert 16 <= scale / bin_width([torch.full((3, 3), -scale)] * 2) <= 32
    assert bin_width([torch.zeros(3, 3)]) == 1
