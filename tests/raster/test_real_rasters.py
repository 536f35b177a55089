"""Maps of three real rasters, each with a trap of its own."""

import numpy as np
import pytest
import rasterio

from bhvit_seg.errors import UserError
from bhvit_seg.inference.source import ModelSource
from bhvit_seg.raster.options import ReadOptions
from bhvit_seg.raster.predict import WindowChoices, WorkChoices, map_raster

COLLAR, ALPHA, FOUR = ('5b90f92da0d7280005fab355_4310.tif', 'pix4d_alpha_nodata.tif',
                       'm_4709963_se_14_1_20200831.tif')


@pytest.mark.data
def test_traps_of_real_rasters(data_root, map_model, tmp_path):
    def run(name, channels=3, **reading):
        raster, out = data_root / 'geotiff' / name, tmp_path / name
        source = ModelSource(packed=str(map_model(channels)), threads=1)
        map_raster(raster, out, source, source.load(), ReadOptions(**reading),
                   WindowChoices((256, 256)), work=WorkChoices(overwrite=True))
        with rasterio.open(raster) as given, rasterio.open(out) as made:
            assert (made.crs, made.transform, made.shape) == (
                given.crs, given.transform, given.shape)
            return given.read(), made.read(1)

    # An undeclared black border (tests/raster/test_collars.py says where), only where asked.
    _, labels = run(COLLAR, border_nodata='auto')
    assert 0.1812 < (labels == 255).mean() < 0.187
    assert (run(COLLAR)[1] != 255).all()
    # A border that alpha tells.
    bands, labels = run(ALPHA)
    np.testing.assert_array_equal(labels == 255, bands[3] == 0)
    # Declared nodata that no pixel has; a fourth band, of the model or not.
    assert (run(FOUR)[1] != 255).all()
    _, labels = run(FOUR, channels=4)
    _, others = run(FOUR, channels=4, bands=(4, 1, 2, 3))
    assert (labels != 255).all() and (labels != others).any()
    with pytest.raises(UserError, match='--bands'):
        run(FOUR, channels=5)
