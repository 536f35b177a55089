"""Maps of whole rasters: against a plain computation, and the same pixels from any worker."""

import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from raster.rasters import NAMES, PALETTE, paint

from bhvit_seg.errors import UserError
from bhvit_seg.inference.source import ModelSource
from bhvit_seg.inference.windows import cut_blocks, lay_grid
from bhvit_seg.native import PackedSegmentor
from bhvit_seg.raster import predict, workers
from bhvit_seg.raster.mapping import windows_of_run
from bhvit_seg.raster.options import ReadOptions
from bhvit_seg.raster.predict import WindowChoices, WorkChoices, map_raster
from bhvit_seg.raster.writing import OutputOptions

STARTED = 60  # seconds that processes may take to start


def source_of(path) -> ModelSource:
    return ModelSource(packed=str(path), threads=1)


def map_with(raster, out, packed, **options):
    source = source_of(packed)
    return map_raster(raster, Path(out), source, source.load(), **options)


def read(path, band=1):
    with rasterio.open(path) as dataset:
        return dataset.read(band)


# How windows are blended is tested in test_mapping.py and tests/inference/test_blending.py.
@pytest.mark.parametrize('size', [(152, 212), (64, 64)])
def test_labels_and_probabilities_are_those_of_the_formulas(size, map_model, write_raster,
                                                            tmp_path):
    transform = rasterio.Affine(0.31, 0.07, 4e5 + 1 / 3, 0.05, -0.29, 5.3e6 + 1 / 7)
    raster = write_raster(size, tiled=False, transform=transform)
    out = tmp_path / 'out.tif'
    report = map_with(raster, out, map_model(), windows=WindowChoices(size),
                      probabilities='float16')
    segmentor = PackedSegmentor(map_model())
    image = np.ascontiguousarray(paint(size, 3, 0).transpose(1, 2, 0))
    logits = torch.from_numpy(segmentor.logits(image).astype(float))[None]
    scores = torch.nn.functional.interpolate(logits, scale_factor=4, mode='bilinear')[0].numpy()
    shares = np.exp(scores - scores.max(0))
    shares /= shares.sum(0)
    labels = read(out)
    np.testing.assert_array_equal(labels, segmentor.predict(image))
    assert len(np.unique(labels)) > 1
    # Where float32 and float64 differ, classes are as good as equal.
    first, second = np.sort(scores, axis=0)[[-1, -2]]
    clear = first - second > 1e-4 * np.abs(scores).max()
    assert clear.mean() > 0.98
    np.testing.assert_array_equal(labels[clear], scores.argmax(0)[clear])
    with rasterio.open(report.probabilities) as dataset:
        np.testing.assert_allclose(dataset.read(), shares, atol=2e-3)
        assert dataset.descriptions == NAMES
    with rasterio.open(out) as made:
        assert (made.crs.to_epsg(), made.transform) == (32632, transform)
        assert [made.colormap(1)[index][:3] for index in range(3)] == list(PALETTE)
        assert [made.tags(1)[f'CLASS_{index}'] for index in range(3)] == list(NAMES)


def test_a_model_of_sixteen_bits_takes_values_as_they_are(map_model, write_raster, tmp_path):
    raster, model = write_raster((64, 60), bands=4, dtype='uint16'), map_model(4, 'unchanged')
    map_with(raster, tmp_path / 'raw.tif', model)
    image = np.ascontiguousarray(16. * paint((64, 60), 4, 0).transpose(1, 2, 0), np.float32)
    np.testing.assert_array_equal(read(tmp_path / 'raw.tif'), PackedSegmentor(model).predict(image))


@pytest.fixture(scope='module')
def large(map_model, tmp_path_factory):
    """A raster of several blocks with holes, and its map, made in one go in this process."""
    folder = tmp_path_factory.mktemp('large')
    pixels = paint((1700, 700), 3, 1)
    pixels[:, 300:900, 200:450] = 0
    pixels[:, 1200:1210] = 0
    with rasterio.open(folder / 'image.tif', 'w', driver='GTiff', height=1700, width=700, count=3,
                       dtype='uint8', tiled=True, nodata=0, compress='deflate',
                       crs='EPSG:32632', transform=rasterio.Affine(1, 0, 0, 0, -1, 0)) as dataset:
        dataset.write(pixels)
    map_with(folder / 'image.tif', folder / 'map.tif', map_model(), probabilities='uint8')
    return folder / 'image.tif', folder / 'map.tif', folder / 'map_probabilities.tif'


def assert_same_pixels(out: Path, large) -> None:
    for made, wanted in zip((out, out.with_name(f'{out.stem}_probabilities.tif')), large[1:]):
        with rasterio.open(made) as one, rasterio.open(wanted) as other:
            assert (one.profile, one.tags(), one.shape) == (
                other.profile, other.tags(), other.shape)
            np.testing.assert_array_equal(one.read(), other.read())
            np.testing.assert_array_equal(one.dataset_mask(), other.dataset_mask())
    assert not list(out.parent.glob('.*.work')), 'the journal is gone'


def test_narrow_blocks_give_the_same_pixels(large, map_model, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, 'block_size', lambda *args: (512, 512))
    report = map_with(large[0], tmp_path / 'out.tif', map_model(), probabilities='uint8')
    assert_same_pixels(tmp_path / 'out.tif', large)
    grid = lay_grid((1700, 700), (64, 64), 0.25, 4)
    done = report.statistics
    assert done['computed'] + done['empty'] > len(grid.tops) * len(grid.lefts)


def test_memory_limit_narrows_blocks(large, map_model):
    from bhvit_seg.raster.memory import Demand, block_size, memory_of

    grid = lay_grid((40000, 40000), (512, 512), 0.25, 4)
    demand = Demand(classes=150, pixel=3, probability=0, batch=1)
    height, width = block_size(grid, demand, 1 << 30)
    assert height == 512 and 512 < width < 40000 and width % 512 == 0
    assert memory_of(grid, demand, width) <= 1 << 30
    with pytest.raises(UserError, match='MB more'):
        block_size(grid, demand, 1 << 20)


@pytest.mark.parametrize('seconds, narrowed', [(0.001, False), (0.05, True), (3.0, True)])
def test_an_interrupt_loses_half_a_minute_or_a_few_windows(seconds, narrowed, monkeypatch):
    from bhvit_seg.raster import memory

    grid = lay_grid((5120, 150_000), (224, 224), 0.25, 4)
    model = SimpleNamespace(batch=2, channels=3, scores=lambda windows: windows)
    monkeypatch.setattr(memory.timeit, 'repeat', lambda *args, **kwargs: [9.0, 2 * seconds])
    width = memory.width_in_time(grid, model, np.uint8, 100_352)
    column = [block for block in cut_blocks((5120, 150_000), (512, width)) if block.left == width]
    rows, columns = windows_of_run(grid, column)
    assert (width < 100_352) == narrowed and width % 512 == 0
    assert len(rows) * len(columns) / len(column) * seconds < 35 or 32 <= len(columns) <= 36


@pytest.fixture
def kill_one(monkeypatch):
    """A function that has a worker killed after the first block, and lists those killed."""
    monkeypatch.setattr(workers, 'LONGEST_RUN', 1)
    store, killed = predict.Journal.store, []

    def arrange(find_worker):
        def store_and_kill(self, index, content):
            store(self, index, content)
            if not killed:
                killed.append(find_worker())
                os.kill(killed[0], signal.SIGKILL)

        monkeypatch.setattr(predict.Journal, 'store', store_and_kill)
        return killed

    return arrange


def test_processes_of_which_one_is_killed_give_the_same_pixels(large, map_model, tmp_path,
                                                               kill_one):
    killed = kill_one(lambda: int(subprocess.run(
        ['pgrep', '-P', str(os.getpid()), '-f', 'spawn_main'], capture_output=True,
        text=True).stdout.split()[-1]))
    map_with(large[0], tmp_path / 'out.tif', map_model(), probabilities='uint8',
             work=WorkChoices(workers=2))
    assert killed
    assert_same_pixels(tmp_path / 'out.tif', large)


def test_a_cluster_of_which_one_is_killed_gives_the_same_pixels(large, map_model, tmp_path,
                                                                kill_one):
    distributed = pytest.importorskip('distributed')
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None,
                                  worker_dashboard_address=None) as cluster:
        killed = kill_one(lambda: next(iter(cluster.workers.values())).pid)
        map_with(large[0], tmp_path / 'out.tif', map_model(), probabilities='uint8',
                 work=WorkChoices(scheduler=cluster.scheduler_address))
    assert killed
    assert_same_pixels(tmp_path / 'out.tif', large)


def test_killed_runs_go_on_and_give_the_same_pixels(large, map_model, start_tool, tmp_path):
    out = tmp_path / 'folder' / 'out.tif'
    arguments = ('tools/predict_raster.py', large[0], out, '--packed', map_model(), '--threads', 1,
                 '--probabilities', '--workers', 2)
    seen = []
    for _ in range(2):
        process = start_tool(*arguments)
        before = len(seen)
        limit = time.monotonic() + STARTED
        while process.poll() is None and time.monotonic() < limit:
            seen = sorted(out.parent.glob('.*.work/*.npz'))
            if len(seen) > before:
                break
            time.sleep(0.005)
        process.kill()
        process.communicate()
        assert not out.exists() or process.returncode == 0
    for words in (('from before', 'already'), ('there already',)):
        process = start_tool(*arguments)
        told, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert seen and any(word in told for word in words)
        assert_same_pixels(out, large)


def test_a_run_that_fails_keeps_what_is_done(large, map_model, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise UserError('it failed')

    out = tmp_path / 'out.tif'
    monkeypatch.setattr(predict, 'write_probabilities', full)
    with pytest.raises(UserError, match='it failed'):
        map_with(large[0], out, map_model(), probabilities='uint8')
    assert not out.with_name('out_probabilities.tif').exists()
    monkeypatch.undo()
    assert map_with(large[0], out, map_model(), probabilities='uint8').resumed > 0
    assert_same_pixels(out, large)


def test_other_models_and_options_do_not_go_on(large, map_model, tmp_path, monkeypatch):
    out = tmp_path / 'out.tif'

    def fail(*args, **kwargs):
        raise UserError('stopped')

    monkeypatch.setattr(predict, 'run_here', fail)
    with pytest.raises(UserError, match='stopped'):
        map_with(large[0], out, map_model())
    monkeypatch.undo()
    for words, packed, options in (
            ('in model', map_model(seed=1), {}),
            ('in windows', map_model(), dict(windows=WindowChoices(None, 0.5))),
            ('in reading', map_model(), dict(reading=ReadOptions(nodata=9.0))),
            ('in output', map_model(), dict(output=OutputOptions(compress='lzw')))):
        with pytest.raises(UserError, match='begun by another run') as error:
            map_with(large[0], out, packed, **options)
        assert words in str(error.value) and '--restart' in str(error.value)
    map_with(large[0], out, map_model(seed=1), work=WorkChoices(restart=True))
    with pytest.raises(UserError, match='--overwrite'):
        map_with(large[0], out, map_model())
    assert map_with(large[0], out, map_model(seed=1)).existed
    map_with(large[0], out, map_model(), work=WorkChoices(overwrite=True))
    np.testing.assert_array_equal(read(out), read(large[1]))
