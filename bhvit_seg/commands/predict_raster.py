"""``bhvit-seg predict-raster``: maps georeferenced rasters."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from bhvit_seg.commands.arguments import add_model, check_model
from bhvit_seg.errors import UserError, explain_interrupt, load_package

if TYPE_CHECKING:
    from bhvit_seg.inference.predictor import Predictor
    from bhvit_seg.raster.outputs import OutputPaths
    from bhvit_seg.raster.predict import MapReport

DESCRIPTION = ('Maps rasters of any size: a label GeoTIFF with the CRS, transform and size of its '
               'raster. An interrupted run continues when the same command is given again.')
EXAMPLES = (
    'bhvit-seg predict-raster mosaic.tif roads.tif --packed model.bhv',
    'bhvit-seg predict-raster mosaic.tif roads.tif --packed model.bhv --vector roads.gpkg '
    '--preview roads.png',
    'bhvit-seg predict-raster flights/ maps/ --model roads-1m --resolution model --cog --workers 4')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('inputs', nargs='+', metavar='IN',
                        help='raster that GDAL opens, or folder of rasters')
    parser.add_argument('out', metavar='OUT',
                        help='GeoTIFF (.tif) to write; a folder for several rasters')

    model = parser.add_argument_group('model')
    add_model(model)
    model.add_argument('--threads', type=int, metavar='N',
                       help='threads of each process (default: all cores, shared by --workers)')

    add = parser.add_argument_group('reading').add_argument
    add('--bands', type=int, nargs='+', metavar='N',
        help="bands in the model's order, from 1 (default: the first ones)")
    add('--no-alpha', action='store_true',
        help='a band tagged as alpha is an ordinary band, such as near infrared, and does not mark '
             'nodata')
    add('--nodata', type=float, metavar='X', help='nodata value, instead of the declared one')
    add('--border-nodata', nargs='?', const='auto', metavar='COLOUR',
        choices=('auto', 'black', 'white'),
        help='an undeclared border of this colour is nodata: black, white, or auto: either or both '
             '(default with the flag alone)')
    add('--border-tolerance', type=int, default=10, metavar='N',
        help='largest difference from that colour, of 255 (default: 10)')
    add('--value-range', type=float, nargs=2, metavar=('LOW', 'HIGH'),
        help='values that become black and white, for rasters of more than 8 bits and models '
             'trained on 8')
    add('--resolution', metavar='METRES',
        help='resample to this ground sampling distance while reading; model: to that of the '
             'training images')

    add = parser.add_argument_group('windows').add_argument
    add('--window', type=int, nargs='+', metavar='PIXELS',
        help='side, or height and width, of a window in pixels (default: the training crop)')
    add('--overlap', type=float, default=0.25, metavar='FRACTION',
        help='fraction of a window that its neighbour also covers (default: 0.25)')

    add = parser.add_argument_group('output').add_argument
    add('--cog', action='store_true', help='write cloud-optimized GeoTIFFs')
    add('--compress', default='deflate', metavar='NAME',
        help='deflate, lzw, zstd or none (default: deflate)')
    add('--no-overviews', action='store_true', help='write no overviews')
    add('--probabilities', nargs='?', const='uint8', choices=('uint8', 'float16'), metavar='TYPE',
        help='also write OUT_probabilities.tif, a band a class: uint8 (default with the flag '
             'alone) or float16')
    add('--vector', metavar='FILE', help='also write polygons: .gpkg, .geojson or .fgb')
    add('--classes', nargs='+', metavar='CLASS', help='classes that become polygons (default: all)')
    add('--min-area', type=float, metavar='M2',
        help='regions of fewer square metres go to the neighbouring class with the longest common '
             'border')
    add('--min-pixels', type=int, metavar='N', help='the same in pixels, for rasters without a CRS')
    add('--simplify', type=float, metavar='M',
        help="how far simplified lines may lie from the pixels' edges; metres, or pixels where the "
             'raster has no CRS')
    add('--centerlines', nargs='*', metavar='CLASS',
        help='also write centre lines of these classes (default with the flag alone: road) beside '
             'the polygons')
    add('--preview', metavar='FILE.png',
        help='also write a picture, and FILE.html with map and image under a slider. With several '
             'rasters --vector and --preview name the suffix, and files lie beside the maps')

    add = parser.add_argument_group('work').add_argument
    add('--max-memory', default='2GB', metavar='SIZE',
        help='memory of all processes here together (default: 2GB)')
    add('--workers', type=int, default=1, metavar='N',
        help='processes on this machine (default: 1)')
    add('--scheduler', metavar='ADDRESS',
        help='Dask scheduler, such as tcp://host:8786, whose workers compute; they have to find '
             'raster and model under the same paths')
    add('--restart', action='store_true', help='discard the finished blocks of an interrupted run')
    add('--overwrite', action='store_true', help='replace existing files; never inputs')


def run(args: argparse.Namespace) -> int:
    check_arguments(args)
    load_package('rasterio')
    from bhvit_seg.inference.inputs import find_rasters
    from bhvit_seg.inference.source import ModelSource
    from bhvit_seg.raster.memory import parse_memory
    from bhvit_seg.raster.options import ReadOptions
    from bhvit_seg.raster.outputs import check_outputs, plan_outputs
    from bhvit_seg.raster.predict import WindowChoices, WorkChoices, map_raster
    from bhvit_seg.raster.writing import OutputOptions

    threads = args.threads
    if threads is None and args.workers > 1:
        from bhvit_seg.native import usable_cores

        threads = max(1, usable_cores() // args.workers)
    source = ModelSource(absolute(args.packed), absolute(args.config), absolute(args.checkpoint),
                         args.device, threads, args.cfg_options)
    reading = ReadOptions(
        bands=args.bands and tuple(args.bands), nodata=args.nodata,
        border_nodata=args.border_nodata, border_tolerance=args.border_tolerance,
        value_range=args.value_range and tuple(args.value_range), alpha=not args.no_alpha)
    side = args.window and (args.window[0], args.window[-1])
    output = OutputOptions(args.cog, args.compress, not args.no_overviews)
    work = WorkChoices(parse_memory(args.max_memory), args.workers, args.scheduler, args.restart,
                       args.overwrite)
    rasters = find_outputs(find_rasters(args.inputs, args.out), args.inputs, Path(args.out))
    plans = {absolute(raster): plan_outputs(
        out, bool(args.probabilities), args.vector, args.centerlines is not None, args.preview,
        len(rasters) > 1) for raster, out in rasters.items()}
    if args.vector is not None:
        for package in ('pyogrio', 'pyproj', 'shapely', 'skimage.measure'):
            load_package(package)
    check_outputs(plans, source.files, args.overwrite)
    model = source.load()
    reading = replace(reading, resolution=find_resolution(args.resolution, model))
    if args.vector is not None:
        check_vectors(args, model.classes, plans)
    if model.resizes:
        print('note: the test pipeline of this model resizes images; rasters are mapped at their '
              'own resolution', file=sys.stderr)
    failed = 0
    for raster, plan in plans.items():
        try:
            report = map_raster(raster, plan.labels, source, model, reading,
                                WindowChoices(side, args.overlap), output, work,
                                args.probabilities)
            print(describe(report))
            write_companions(raster, plan, args)
        except UserError as error:
            if len(rasters) == 1:
                raise
            failed += 1
            print(f'error: {error}', file=sys.stderr)
    return 1 if failed else 0


def check_arguments(args: argparse.Namespace) -> None:
    from bhvit_seg.raster.vector.features_io import DRIVERS

    check_model(args)
    for name in ('workers', 'threads'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f'--{name} is {getattr(args, name)}: give at least 1')
    if args.window is not None and len(args.window) > 2:
        raise UserError('--window takes a side, or height and width, of the windows')
    if args.vector is None:
        for name in ('classes', 'min_area', 'min_pixels', 'simplify', 'centerlines'):
            if getattr(args, name) is not None:
                raise UserError(f'--{name.replace("_", "-")} is about vectors: give the file to '
                                'write them to with --vector')
    elif Path(args.vector).suffix.lower() not in DRIVERS:
        raise UserError(f'--vector {args.vector} has no known suffix: expected one of '
                        f'{", ".join(DRIVERS)}')
    if args.preview is not None and Path(args.preview).suffix.lower() != '.png':
        raise UserError(f'--preview {args.preview}: expected a name that ends in .png')


def find_resolution(given: str | None, model: Predictor) -> float | None:
    """Return the metres a pixel that ``--resolution`` asks for, or raise a UserError."""
    if given != 'model':
        try:
            return None if given is None else float(given)
        except ValueError as error:
            raise UserError(f'--resolution {given} is not a length: give metres, such as 0.5, or '
                            '`model`') from error
    if model.ground_sampling_distance is None:
        raise UserError('--resolution model: the model does not say at which ground sampling '
                        'distance it was trained: give metres')
    return model.ground_sampling_distance


def check_vectors(args: argparse.Namespace, classes: Sequence[str], rasters: Iterable[str]) -> None:
    """Raise a UserError where vectors cannot be written, before hours of mapping."""
    from bhvit_seg.raster.opening import open_raster
    from bhvit_seg.raster.vector.features_io import check_place

    if args.centerlines is not None:
        args.centerlines = args.centerlines or ['road']
    for name in ('classes', 'centerlines'):
        for wanted in getattr(args, name) or ():
            if wanted not in classes:
                raise UserError(f'--{name} {wanted}: the model has no class of that name, but '
                                f'{", ".join(classes)}')
    if args.min_area is not None and args.min_pixels is not None:
        raise UserError('--min-area and --min-pixels are both given: give one of them')
    for raster in rasters:
        with open_raster(raster) as dataset:
            if not check_place(dataset, Path(args.vector)).known and args.min_area is not None:
                raise UserError(f'{raster} has no CRS, so that --min-area cannot be measured '
                                'in square metres: give --min-pixels')


def absolute(path: str | Path | None) -> str | None:
    """Return an absolute path, for other processes; addresses of GDAL are unchanged."""
    from bhvit_seg.inference.inputs import Kind, kind_of

    if path is None or kind_of(path) is Kind.ADDRESS:
        return path and str(path)
    return str(Path(path).absolute())


def find_outputs(rasters: Mapping[Path | str, Path], inputs: Sequence[str], out: Path
                 ) -> dict[Path | str, Path]:
    """Return for each raster the GeoTIFF to write, or raise a UserError."""
    from bhvit_seg.inference.inputs import RASTER_SUFFIXES
    from bhvit_seg.raster.vector.features_io import DRIVERS

    suffix = '' if out.is_dir() else out.suffix.lower()
    is_file = suffix in ('.tif', '.tiff')
    if is_file and (len(rasters) > 1 or Path(inputs[0]).is_dir()):
        raise UserError(f'{len(rasters)} raster(s) of {", ".join(map(str, inputs))} are to be '
                        f'mapped into {out}, which names one file: give a folder')
    if not is_file and (out.is_file() or suffix in (*RASTER_SUFFIXES, *DRIVERS)):
        raise UserError(f'{out} is the name of a file, but maps are GeoTIFFs: give a name that '
                        'ends in .tif, or a folder')
    return {raster: out if is_file else out / f'{name}.tif' for raster, name in rasters.items()}


def describe(report: MapReport) -> str:
    if report.existed:
        return f'{report.out} is there already'
    done = report.statistics
    resumed = f', blocks from before: {report.resumed}' if report.resumed else ''
    return (f'{report.out}: {done["computed"]} windows in {report.seconds:.1f} s, {done["empty"]} '
            f'without data{resumed}')


def write_companions(raster: str, plan: OutputPaths, args: argparse.Namespace) -> None:
    """Write polygons, centre lines, picture and page of a finished map, unless they exist."""
    from bhvit_seg.progress import WorkProgress
    from bhvit_seg.raster.outputs import is_there
    from bhvit_seg.raster.page import write_page
    from bhvit_seg.raster.preview import write_preview

    def make(name: str, path: Path) -> str:
        bands = {'bands': args.bands and args.bands[:3], 'alpha': not args.no_alpha}
        if name == 'preview':
            write_preview(raster, plan.labels, path, **bands)
        elif name == 'page':
            write_page(raster, plan.labels, path, plan.labels.stem, **bands)
        else:
            with WorkProgress(f'{path.name} ({name})', 100, '%') as progress:
                counts = write_layer(name, plan, args, progress.set_fraction)
            return ': ' + ', '.join(f'{name} of {key}: {count}' for key, count in counts.items())
        return ''

    with explain_interrupt(lambda: f'the map {plan.labels} is finished; the same command makes '
                                   'what belongs beside it'):
        for name, path in plan.companions.items():
            if is_there(path, name) and not args.overwrite:
                print(f'{path} ({name}) is there already and is kept, whatever options made it; '
                      'remove it to have it made again')
            else:
                print(f'{path}{make(name, path)}')


def write_layer(name: str, plan: OutputPaths, args: argparse.Namespace,
                progress: Callable[[float], None]) -> dict[str, int]:
    """Write polygons or centre lines; return how many by class."""
    from bhvit_seg.raster.vector.centerlines import write_centerlines
    from bhvit_seg.raster.vector.vectors import write_vectors

    if name == 'centerlines':
        return write_centerlines(plan.labels, plan.vector, args.centerlines,
                                 simplify=args.simplify, progress=progress)['counts']
    return write_vectors(plan.labels, plan.vector, min_area=args.min_area,
                         min_pixels=args.min_pixels, simplify=args.simplify, classes=args.classes,
                         progress=progress)['counts']
