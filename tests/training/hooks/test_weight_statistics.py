"""The statistics against NumPy on weights that follow a script."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from bhvit_seg.errors import UserError
from bhvit_seg.models.weights import load_checkpoint_safely
from bhvit_seg.training.hooks import WeightStatisticsHook
from bhvit_seg.training.hooks.weight_record import FILE, SIDE, WeightRecord, bin_width, count_bins
from bhvit_seg.training.hooks.weight_statistics import PICTURE, count_near_threshold

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


def scalars(work_dir) -> dict[int, dict]:
    files = list(Path(work_dir).glob('*/vis_data/scalars.json'))
    assert files
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return {line['step']: line for line in lines if 'weights/flip_ratio' in line}


def test_looks_and_histograms_are_those_of_the_weights(tmp_path):
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
    last = np.array(record['layer_histograms'])
    assert last.sum(1).tolist() == list(SIZES.values())
    assert last.sum(0).tolist() == record['histograms'][-1]['counts']


def test_visualizer_gets_shares_and_the_picture_of_the_work_dir(tmp_path):
    train(tmp_path, ITERATIONS, [Script(WALK), statistics()])
    lines = scalars(tmp_path)
    assert list(lines) == [3, 6, 9, 12]
    for look in looks():
        line = lines[look['iteration']]
        assert line['weights/flip_ratio'] == pytest.approx(sum(look['flipped']) / 45)
        assert line['weights/near_zero'] == pytest.approx(sum(look['near_zero']) / 45)
        for i, (name, size) in enumerate(SIZES.items()):
            assert line[f'weights/flip_ratio/{name}'] == pytest.approx(look['flipped'][i] / size)
            assert line[f'weights/near_zero/{name}'] == pytest.approx(look['near_zero'][i] / size)
    pictures = sorted(path.name for path in tmp_path.glob('*/vis_data/vis_image/*'))
    assert pictures == ['weight_statistics_12.png', 'weight_statistics_6.png']
    last, = tmp_path.glob('*/vis_data/vis_image/weight_statistics_12.png')
    assert np.array_equal(cv2.imread(str(last)), cv2.imread(str(tmp_path / PICTURE)))


@pytest.mark.parametrize('stopped', [4, 8])
def test_resumed_run_records_what_an_uninterrupted_one_does(stopped, tmp_path):
    train(tmp_path / 'whole', ITERATIONS, [Script(WALK), statistics(figure_interval=100)])
    train(tmp_path / 'cut', stopped, [Script(WALK), statistics(figure_interval=100)])
    (tmp_path / 'cut' / FILE).unlink()
    # The histogram at the end of the shorter run is no part of the longer one's record.
    checkpoint = load_checkpoint_safely(tmp_path / 'cut' / f'iter_{stopped}.pth')
    checkpoint['weight_statistics']['record']['histograms'].clear()
    torch.save(checkpoint, tmp_path / 'cut' / f'iter_{stopped}.pth')
    train(tmp_path / 'cut', ITERATIONS, [Script(WALK), statistics(figure_interval=100)],
          resume=True)
    assert (tmp_path / 'cut' / FILE).read_bytes() == (tmp_path / 'whole' / FILE).read_bytes()
    whole, cut = (load_checkpoint_safely(tmp_path / name / 'iter_12.pth')['weight_statistics']
                  for name in ('whole', 'cut'))
    assert whole['record'] == cut['record']
    assert all(map(torch.equal, whole['signs'], cut['signs']))


def test_record_begins_anew_with_other_settings_and_with_given_weights(tmp_path):
    train(tmp_path / 'old', 8, [Script(WALK), statistics()])
    checkpoint = str(tmp_path / 'old' / 'iter_8.pth')
    train(tmp_path / 'weights', 3, [Script(WALK), statistics()], load_from=checkpoint)
    look, = record_of(tmp_path / 'weights')['looks']
    moved = [(centred(WALK[2][n]) >= 0) != (centred(WALK[7][n]) >= 0) for n in SIZES]
    assert look['flipped'] == [int(flips.sum()) for flips in moved]
    train(tmp_path / 'other', ITERATIONS, [Script(WALK), statistics(near_zero=0.5)], resume=True,
          load_from=checkpoint)
    assert [look['iteration'] for look in record_of(tmp_path / 'other')['looks']] == [9, 12]


def test_a_model_without_binary_layers_trains_without_it(tmp_path):
    train(tmp_path, 4, [statistics()], model=Toy(binary=False))
    assert not (tmp_path / FILE).exists()
    assert 'weight_statistics' not in load_checkpoint_safely(tmp_path / 'iter_4.pth')


def test_an_end_between_looks_has_a_histogram_and_a_picture(tmp_path):
    train(tmp_path, 2, [Script(WALK), statistics()])
    record = record_of(tmp_path)
    assert not record['looks'] and record['histograms'][-1]['iteration'] == 2
    assert (tmp_path / PICTURE).is_file()


def test_mixed_precision_counts_the_same():
    weight = torch.randn(20, 50, generator=torch.Generator().manual_seed(0)) * SCALE
    expected = count_near_threshold(weight, NEAR), count_bins(weight, 2 ** -9)
    with torch.autocast('cpu', torch.bfloat16):
        got = count_near_threshold(weight, NEAR), count_bins(weight, 2 ** -9)
    assert all(map(torch.equal, expected, got))


def test_bins_have_exact_edges_and_hold_what_lies_beyond():
    width = 2 ** -5
    weight = torch.tensor([0.0, width, -width, 3.5 * width, -3.5 * width, 1e6, -1e6])
    counts = count_bins(weight, width)
    where = {0: 1, 1: 1, -1: 1, 3: 1, -4: 1, SIDE - 1: 1, -SIDE: 1}
    assert {int(i) - SIDE: int(counts[i]) for i in counts.nonzero()} == where


@pytest.mark.parametrize('scale', [1e-6, 0.02, 1.0, 300.0])
def test_width_follows_the_mean(scale):
    weight = torch.full((3, 3), -scale)
    assert 16 <= scale / bin_width([weight, weight]) <= 32 and bin_width([weight * 0]) == 1


def test_shares_of_a_record():
    record = WeightRecord(10, 0.1, {'a': 4, 'b': 16}, looks=[
        dict(iteration=i * 10, flipped=[i, 2 * i], near_zero=[4, 0]) for i in range(1, 11)])
    assert record.shares('flipped')[:2].tolist() == [3 / 20, 6 / 20]
    assert record.layer_shares('flipped')[1].tolist() == [2 / 4, 4 / 16]
    assert record.last_tenth().tolist() == [False] * 9 + [True]


def test_missing_matplotlib_is_named_before_training(monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    with pytest.raises(UserError, match='pip install matplotlib'):
        statistics().before_train(SimpleNamespace(model=Toy()))


@pytest.mark.parametrize('arguments', [
    dict(interval=0), dict(interval=2.5), dict(figure_interval=-1), dict(near_zero=0.0)])
def test_wrong_arguments_are_named(arguments):
    (name, value), = arguments.items()
    with pytest.raises(UserError, match=f'{name} of WeightStatisticsHook is {value}'):
        WeightStatisticsHook(**arguments)
