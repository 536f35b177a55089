"""Whole maps by models whose answers are known, over sizes, strides and masks of all kinds."""

import numpy as np
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raster.rasters import NAMES, PALETTE

from bhvit_seg.inference.source import ModelSource
from bhvit_seg.raster.predict import WindowChoices, map_raster

CELL = 4


class CellModel:
    """Scores a cell by its own pixels alone: windows can not matter to it."""

    name, digest = 'cells', 'cells'
    classes, palette = NAMES, PALETTE
    channels, eight_bit, fill = 3, True, (9., 9., 9.)
    window, cell, batch, resizes = (32, 32), CELL, 1, False
    ground_sampling_distance = None

    def __init__(self):
        self.seen = []

    def scores(self, windows):
        self.seen.append(windows)
        b, h, w, c = windows.shape
        cells = windows.reshape(b, h // CELL, CELL, w // CELL, CELL, c).astype(np.float32)
        return np.ascontiguousarray(cells.mean(axis=(2, 4)).transpose(0, 3, 1, 2))

    def label(self, scores):
        return np.kron(scores.argmax(axis=0), np.ones((CELL, CELL))).astype(np.uint8)


def write(path, pixels, mask):
    profile = {'driver': 'GTiff', 'height': pixels.shape[1], 'width': pixels.shape[2],
               'count': 3, 'dtype': 'uint8', 'crs': 'EPSG:32632',
               'transform': rasterio.Affine(2, 0, 0, 0, -2, 0)}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, 'w', **profile) as out:
        out.write(pixels)
        if mask is not None:
            out.write_mask(mask)


def map_of(folder, pixels, mask, model, window, overlap):
    write(folder / 'image.tif', pixels, mask)
    (folder / 'map.tif').unlink(missing_ok=True)
    report = map_raster(folder / 'image.tif', folder / 'map.tif', ModelSource(), model,
                        windows=WindowChoices(window, overlap))
    with rasterio.open(folder / 'map.tif') as dataset:
        return dataset.read(1), report


@st.composite
def scenes(draw):
    window = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    size = tuple(draw(st.one_of(st.just(1), st.integers(1, 2 * side))) for side in window)
    kind = draw(st.sampled_from(['none', 'noise', 'rectangle', 'all']))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    mask = None
    if kind == 'all':
        mask = np.zeros(size, bool)
    elif kind == 'noise':
        mask = rng.random(size) < draw(st.sampled_from([0.02, 0.5, 0.98]))
    elif kind == 'rectangle':
        mask = np.ones(size, bool)
        top, left = (int(rng.integers(side)) for side in size)
        mask[top:top + int(rng.integers(1, 40)), left:left + int(rng.integers(1, 40))] = False
    overlap, batch = draw(st.sampled_from([0., 0.1, 0.25, 0.5, 0.77])), draw(st.integers(1, 8))
    return window, size, mask, overlap, batch, rng


@settings(max_examples=40, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scene=scenes())
def test_windows_do_not_matter_to_a_model_of_cells(scene, tmp_path):
    window, size, mask, overlap, batch, rng = scene
    pixels = rng.integers(0, 256, (3, *size), dtype=np.uint8)
    model = CellModel()
    model.batch = batch
    labels, report = map_of(tmp_path, pixels, mask, model, window, overlap)
    valid = np.ones(size, bool) if mask is None else mask
    np.testing.assert_array_equal(labels == 255, ~valid)
    # What the model should have seen: the fill under the mask, the edge beyond the raster.
    shown = np.where(valid, pixels, np.uint8(9))
    beyond = [(0, -side % CELL) for side in size]
    shown = np.pad(shown, [(0, 0), *beyond], 'edge').transpose(1, 2, 0)[None]
    means = CellModel().scores(shown)[0]
    first, second = np.sort(means, axis=0)[[-1, -2]]
    clear = np.kron(first - second > 1e-3, np.ones((CELL, CELL), bool))[:size[0], :size[1]]
    expected = model.label(means)[:size[0], :size[1]]
    np.testing.assert_array_equal(labels[valid & clear], expected[valid & clear])
    assert report.statistics['computed'] == sum(map(len, model.seen))
    if not valid.any():
        assert not model.seen
