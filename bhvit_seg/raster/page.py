"""An offline HTML page that compares a label raster with its image by a slider."""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bhvit_seg import __version__
from bhvit_seg.errors import UserError
from bhvit_seg.raster.opening import named_failure, open_raster
from bhvit_seg.raster.preview import (
    MAX_SIDE,
    LabelPicture,
    check_same_size,
    encode,
    fit,
    read_labels,
    read_picture,
    write_output,
)
from bhvit_seg.raster.vector.geodesy import Geodesy

if TYPE_CHECKING:
    from rasterio.crs import CRS
    from rasterio.io import DatasetReader

JPEG_QUALITY = 85


def write_page(image: str | Path, labels: str | Path, out: str | Path, title: str, *,
               bands: Sequence[int] | None = None, max_side: int = MAX_SIDE,
               alpha: bool = True) -> None:
    """Write a page with labels and image under a slider; arguments of :func:`write_preview`."""
    with open_raster(image) as source, open_raster(labels) as result:
        check_same_size(source, result)
        size = fit(source.shape, max_side)
        picture = read_labels(result, size)
        pixels, valid = read_picture(source, size, bands, picture.valid, alpha)
        sides = pixel_size(source)
        width, height = proportions(source)
        terms = (f'    <dt>{escape(term)}</dt><dd>{escape(text)}</dd>'
                 for term, text in facts(source))
        # A palette that is transparent at nodata.
        colours = {index: (*map(int, colour), 0 if index == picture.nodata else 255)
                   for index, colour in enumerate(picture.palette)}
        mask = '' if valid.all() else '<img id="mask" hidden alt="" src="{}">'.format(data_uri(
            'image/png', encode(valid[None].astype(np.uint8), 'PNG',
                                {0: (0, 0, 0, 0), 1: (0, 0, 0, 255)})))
        values = {
            'title': escape(title),
            'subtitle': escape(f'{Path(image).name} → {Path(labels).name}'),
            'generator': f'bhvit_seg {__version__}',
            'shown_width': f'{width:.6g}',
            'shown_height': f'{height:.6g}',
            'pixels': str(size[1]),
            'metres': f'{sides[0] * source.width:.6g}' if sides else '0',
            'image': data_uri('image/jpeg', encode(pixels, 'JPEG', quality=JPEG_QUALITY)),
            'map': data_uri('image/png', encode(picture.ids[None], 'PNG', colours)),
            'mask': mask,
            'legend': legend(picture, count_ids(result)),
            'facts': '\n'.join(terms),
            'footer': f'Made with bhvit_seg {__version__}. '
                      + ('All pixels of the raster are shown.' if size == source.shape else
                         f'Shown at {size[1]} × {size[0]} pixels; shares are of all pixels.'),
        }
    template = resources.files(__package__).joinpath('page.html').read_text(encoding='utf-8')
    page = re.sub(r'\{\{(\w+)\}\}', lambda place: values[place[1]], template)
    write_output(out, page.encode('utf-8'))


def count_ids(dataset: DatasetReader) -> np.ndarray:
    """Return the number of pixels of each id of a label raster, int64 (256,)."""
    counts = np.zeros(256, np.int64)
    with named_failure(dataset.name):
        for _, window in dataset.block_windows(1):
            counts += np.bincount(dataset.read(1, window=window).ravel(), minlength=256)
    return counts


def data_uri(kind: str, content: bytes) -> str:
    return f'data:{kind};base64,{b64encode(content).decode("ascii")}'


def legend(labels: LabelPicture, counts: np.ndarray) -> str:
    """Return the classes as HTML, the largest first, with fractions of the classified pixels."""
    ids = [index for index in range(256) if index != labels.nodata
           and (counts[index] or index in labels.names)]
    ids.sort(key=lambda index: -counts[index])
    total = sum(int(counts[index]) for index in ids)
    bar, rows = [], []
    for index in ids:
        share = counts[index] / total if total else 0
        name = escape(labels.names.get(index, f'class {index}'))
        colour = '#' + bytes(labels.palette[index]).hex()
        if share:
            bar.append(f'<span style="width:{100 * share:.4f}%;background:{colour}"></span>')
        rows.append(
            f'<li{"" if share else " class=absent"}><span class="swatch" '
            f'style="background:{colour}"></span><b>{name}</b>'
            f'<data value="{share:.6f}">{escape(percent(share))}</data></li>')
    if labels.nodata is not None and counts[labels.nodata]:
        share = counts[labels.nodata] / counts.sum()
        rows.append('<li class="none"><span class="swatch none"></span><b>No data, of all pixels'
                    f'</b><data value="{share:.6f}">{escape(percent(share))}</data></li>')
    return (f'<div class="shares" aria-hidden="true">{"".join(bar)}</div>\n  <ul>\n    '
            + '\n    '.join(rows) + '\n  </ul>')


def percent(share: float) -> str:
    """Format a fraction in percent; only exact values give 0 or 100."""
    if 0 < share < 0.001:
        return '< 0.1 %'
    if 0.999 < share < 1:
        return '> 99.9 %'
    return f'{100 * share:.1f} %'


def facts(dataset: DatasetReader) -> Iterator[tuple[str, str]]:
    """Yield terms and texts on the size and georeference of a raster."""
    yield 'Size', f'{dataset.width} × {dataset.height} pixels'
    points, points_crs = dataset.gcps
    crs, transform = dataset.crs or points_crs, dataset.transform
    if not crs and transform.is_identity:
        yield 'Coordinates', 'none'
        return
    yield 'Coordinate system', describe_crs(crs) if crs else 'not declared'
    if transform.is_identity:
        if points:
            yield 'Coordinates', f'{len(points)} ground control points'
        return
    geographic = bool(crs) and crs.is_geographic
    unit = '°' if geographic else crs.linear_units if crs else 'unknown'
    unit = {'metre': 'm', 'meter': 'm', 'unknown': 'units'}.get(unit, unit)
    yield 'Pixel', '{:.4g} × {:.4g} {}'.format(*map_sides(dataset), unit)
    width, height = dataset.width, dataset.height
    corners = places_of(dataset, [0, width, 0, width], [0, 0, height, height])
    digits = 6 if geographic else 2
    for term, values in zip(('West–east', 'South–north'), corners):
        yield term, f'{min(values):.{digits}f} to {max(values):.{digits}f}'


def describe_crs(crs: CRS) -> str:
    name = re.search(r'"([^"]*)"', crs.to_wkt())
    return ' · '.join(filter(None, [name and name[1], ':'.join(crs.to_authority() or ())])) or (
        'unnamed')


def places_of(dataset: DatasetReader, columns: Sequence[float], rows: Sequence[float]
              ) -> np.ndarray:
    return np.reshape(dataset.transform, (3, 3))[:2] @ [columns, rows, np.ones(len(rows))]


def pixel_size(dataset: DatasetReader) -> tuple[float, float] | None:
    """Return width and height in metres of the pixel in the raster's middle, or None."""
    try:
        return Geodesy(dataset.crs, dataset.transform, dataset.shape).sides
    except UserError:
        return None


def map_sides(dataset: DatasetReader) -> tuple[float, float]:
    transform = dataset.transform
    return math.hypot(transform.a, transform.d), math.hypot(transform.b, transform.e)


def proportions(dataset: DatasetReader) -> tuple[float, float]:
    """Return the displayed width and height, as on the ground where that is known."""
    across, down = pixel_size(dataset) or map_sides(dataset)
    return dataset.width * across / down, float(dataset.height)
