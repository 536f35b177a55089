"""Rasters at another resolution: resampled on reading, in their own CRS and extent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bhvit_seg.errors import UserError, load_package
from bhvit_seg.raster.vector.geodesy import Geodesy

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

    from bhvit_seg.raster.options import ReadOptions

rasterio = load_package('rasterio')
LARGEST_SIDE = 2**31 - 1


def pixel_sides(raster: Any) -> tuple[float, float] | None:
    """Return width and height in metres of the pixel in a raster's middle, on the ellipsoid; None
    without a CRS or transform, a UserError without pyproj."""
    geodesy = Geodesy(raster.crs, raster.transform, (raster.height, raster.width))
    if not geodesy.known:
        return None
    return geodesy.sides or tuple(np.linalg.norm(geodesy.metres_per_pixel, axis=0).tolist())


def resample(dataset: DatasetReader, options: ReadOptions) -> DatasetReader:
    """Return a virtual raster of square pixels of ``options.resolution`` metres, or the same one.

    Larger pixels are means, smaller ones are interpolated bilinearly; pixels without data are
    ignored. An alpha band is added where there may be any. ``dataset`` must stay open.
    """
    resolution, name, count = options.resolution, dataset.name, dataset.count
    if resolution is None or not count or max(options.bands or (1,)) > count:
        return dataset  # what is wrong with bands is told where they are chosen
    sides = pixel_sides(dataset)
    if sides is None:
        raise UserError(f'{name} has no CRS and transform, so that --resolution {resolution:g} '
                        'cannot be measured in metres: leave it out')
    width, height = (max(1, round(side * pixels / resolution))
                     for side, pixels in zip(sides, (dataset.width, dataset.height)))
    if (height, width) == dataset.shape:
        return dataset
    if max(width, height) > LARGEST_SIDE:
        raise UserError(f'--resolution {resolution:g} makes {name} {width}×{height} pixels large: '
                        'give more metres')
    alpha = [band for band, meaning in enumerate(dataset.colorinterp, 1)
             if meaning == rasterio.enums.ColorInterp.alpha]
    if alpha and (not options.alpha or set(alpha) & set(options.bands or ())):
        raise UserError(f'band {alpha[0]} of {name} is tagged as alpha, and --resolution takes it '
                        'as what says where there is data: leave out --no-alpha and that band, or '
                        'resample with `gdalwarp -tr` first')
    settings: dict[str, Any] = {}
    if options.nodata is not None:
        settings = {'src_nodata': None if np.isnan(options.nodata) else options.nodata}
    elif len({repr(value) for value in dataset.nodatavals}) > 1:
        raise UserError(f'the bands of {name} have different nodata values, with which '
                        '--resolution cannot resample: give one with --nodata')
    elif dataset.nodata is None and np.dtype(dataset.dtypes[0]).kind == 'f':
        settings = {'src_nodata': float('nan')}
    across, down = width / dataset.width, height / dataset.height
    if max(across, down) <= 1:
        settings['resampling'] = rasterio.enums.Resampling.average
    else:
        # Otherwise GDAL derives them from each part that it reads, with visible edges.
        settings.update(resampling=rasterio.enums.Resampling.bilinear, XSCALE=across, YSCALE=down)
    return rasterio.vrt.WarpedVRT(
        dataset, transform=dataset.transform * rasterio.Affine.scale(1 / across, 1 / down),
        height=height, width=width, add_alpha=not alpha, UNIFIED_SRC_NODATA='YES',
        # Alpha says where there is data, so nothing has to begin as nodata, which newer releases of
        # GDAL warn of where there is none.
        init_dest_nodata=False, INIT_DEST='0', **settings)
