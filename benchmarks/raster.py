"""Times raster prediction: ``python -m benchmarks.raster pipeline|speed ...``.

``pipeline`` measures what everything around the model costs, in time and memory, on a raster larger
than memory; ``speed`` compares the packed engine with torch on a given raster.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

from bhvit_seg.errors import UserError, command
from bhvit_seg.fileio import make_output_folder, write_json
from bhvit_seg.inference.packed_predictor import PackedPredictor
from bhvit_seg.inference.source import ModelSource
from bhvit_seg.raster.memory import parse_memory
from bhvit_seg.raster.predict import MapReport, WindowChoices, WorkChoices, map_raster

TILE = 512


class CostFreeModel(PackedPredictor):
    """A packed model that computes nothing: all scores are 0."""

    def scores(self, windows: np.ndarray) -> np.ndarray:
        rows, columns = (side // self.cell for side in windows.shape[1:3])
        return np.zeros((len(windows), len(self.classes), rows, columns), np.float32)


def write_sparse_raster(path: Path, side: int) -> None:
    """Write an RGB raster, one in sixteen of whose tiles holds an image and none of the others.

    Args:
        path: The GeoTIFF.
        side: Rows and columns.
    """
    ramp = np.add.outer(np.arange(TILE), np.arange(TILE)) // 5
    noise = np.random.default_rng(0).integers(0, 40, (3, TILE, TILE))
    tile = (ramp + noise).astype(np.uint8)
    with rasterio.open(path, 'w', driver='GTiff', height=side, width=side, count=3, dtype='uint8',
                       tiled=True, blockxsize=TILE, blockysize=TILE, compress='deflate',
                       sparse_ok=True, photometric='RGB', bigtiff='IF_SAFER', crs='EPSG:32632',
                       transform=rasterio.Affine(0.1, 0, 4e5, 0, -0.1, 5e6)) as dataset:
        for row in range(side // TILE):
            for column in range(side // TILE):
                if (7 * row + 3 * column) % 16 == 0:
                    dataset.write(tile, window=Window(column * TILE, row * TILE, TILE, TILE))


def copy_plainly(source: Path, target: Path) -> None:
    """Copy a raster block by block, as rasterio's documentation does."""
    with rasterio.open(source) as given, rasterio.open(target, 'w', **given.profile) as made:
        for _, window in given.block_windows(1):
            made.write(given.read(window=window), window=window)


def benchmark_pipeline(packed: str, out: str | Path, side: int = 40000, window: int = 512,
                       max_memory: int = 1400 << 20) -> dict[str, Any]:
    """Compare mapping a large raster by a model that costs nothing with copying it plainly.

    Args:
        packed: A packed model, for its classes.
        out: The folder of the rasters, which are deleted in the end, and of the result.
        side: Rows and columns of the raster.
        window: Side of the windows.
        max_memory: The limit, in bytes, that mapping is given.

    Returns:
        dict: Seconds and peak resident megabytes of both, each in a process of its own, and how
        fast the pipeline is as a share of the copy. Also written to ``pipeline.json``.

    Raises:
        UserError: There is no room, or the model is none.
    """
    out = make_output_folder(out, '--out')
    needed, free = side * side * 2, shutil.disk_usage(out).free
    if needed > free:
        raise UserError(f'{out} has {free >> 20} MB free, but the rasters may take '
                        f'{needed >> 20} MB: give another --out or a smaller --side')
    raster, copied, mapped = (out / f'{name}.tif' for name in ('sparse', 'copy', 'map'))
    try:
        write_sparse_raster(raster, side)
        copy = _in_process(copy_plainly, raster, copied)
        pipeline = _in_process(_map_for_nothing, raster, mapped, packed, window, max_memory)
    finally:
        for path in (raster, copied, mapped, mapped.with_name('map.tif.aux.xml')):
            path.unlink(missing_ok=True)
    result = {'side': side, 'window': window, 'max_memory': max_memory, 'copy': copy,
              'pipeline': pipeline, 'share': copy['seconds'] / pipeline['seconds']}
    write_json(out / 'pipeline.json', result)
    return result


def _map_for_nothing(raster: Path, out: Path, packed: str, window: int, max_memory: int
                     ) -> dict[str, Any]:
    report = map_raster(raster, out, ModelSource(packed=packed), CostFreeModel(packed, 1),
                        windows=WindowChoices((window, window)),
                        work=WorkChoices(max_memory=max_memory))
    return split(report)


def split(report: MapReport) -> dict[str, Any]:
    return {'windows': report.statistics['computed'], 'seconds': report.seconds}


def _in_process(work: Callable, *args: Any) -> dict[str, Any]:
    """Return seconds and peak memory of work in a process of its own, and what it returns."""
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, work, *args))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise UserError(f'{work.__name__} was ended by the system, for want of memory or disk '
                        'space: try a smaller --side') from None
    finally:
        process.join()


def _measure(sender, work: Callable, *args: Any) -> None:
    import resource

    start = time.perf_counter()
    found = work(*args) or {}
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sender.send({'seconds': seconds, 'peak_megabytes': peak, **found})


def benchmark_speed(raster: str | Path, packed: str, config: str, checkpoint: str,
                    out: str | Path, threads: int = 1, window: int = 512, overlap: float = 0.25,
                    ) -> dict[str, Any]:
    """Compare mapping a raster from bits with mapping it by the same network in torch.

    Args:
        raster: The raster.
        packed: The packed model.
        config: The config that it was exported from.
        checkpoint: The checkpoint that it was exported from.
        out: The folder of both maps and the result.
        threads: How many threads each may use.
        window: Side of the windows.
        overlap: The share of a window that its neighbour covers too.

    Returns:
        dict: Seconds, file to file, of both, how many times faster the packed model is,
        and the share of pixels that have the same class. Also written to ``speed.json``.

    Raises:
        UserError: Something given is wrong.
    """
    out = make_output_folder(out, '--out')
    result: dict[str, Any] = {'raster': str(raster), 'threads': threads, 'window': window,
                              'overlap': overlap}
    maps = []
    for name, source in (
            ('packed', ModelSource(packed=packed, threads=threads)),
            ('torch', ModelSource(config=config, checkpoint=checkpoint, device='cpu',
                                  threads=threads))):
        model = source.load()
        maps.append(out / f'{name}.tif')
        report = map_raster(raster, maps[-1], source, model,
                            windows=WindowChoices((window, window), overlap),
                            work=WorkChoices(max_memory=8 << 30, restart=True, overwrite=True))
        result[name] = split(report)
    result['ratio'] = result['torch']['seconds'] / result['packed']['seconds']
    result['agreement'] = _agreement(*maps)
    write_json(out / 'speed.json', result)
    return result


def _agreement(first: Path, second: Path) -> float:
    """Return the share of pixels that two maps agree on."""
    equal = total = 0
    with rasterio.open(first) as one, rasterio.open(second) as other:
        for _, window in one.block_windows(1):
            same = one.read(1, window=window) == other.read(1, window=window)
            equal, total = equal + int(same.sum()), total + same.size
    return equal / total


def render(result: dict[str, Any]) -> str:
    """Lay out a result as a table for the terminal."""
    names = [name for name in ('copy', 'pipeline', 'packed', 'torch') if name in result]
    lines = [f'{"":<22}' + ''.join(f'{name:>12}' for name in names)]
    for label, value in (('seconds', lambda entry: entry['seconds']),
                         ('peak megabytes', lambda entry: entry.get('peak_megabytes'))):
        cells = [value(result[name]) for name in names]
        if any(cell is not None for cell in cells):
            lines.append(f'{label:<22}' + ''.join(
                f'{"-":>12}' if cell is None else f'{cell:>12.1f}' for cell in cells))
    if 'share' in result:
        lines.append(f'the pipeline runs at {100 * result["share"]:.0f} % of the speed of the copy')
    if 'ratio' in result:
        lines.append(f'packed is {result["ratio"]:.1f} times as fast as torch; '
                     f'{100 * result["agreement"]:.2f} % of the pixels have the same class')
    return '\n'.join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Times raster prediction.')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    pipeline = commands.add_parser(
        'pipeline', help='a generated raster with a model that costs nothing, against a plain copy')
    pipeline.add_argument('packed', metavar='BHV', help='packed model, for its classes')
    pipeline.add_argument('--side', type=int, default=40000, metavar='PIXELS',
                          help='rows and columns of the raster (default: 40000)')
    pipeline.add_argument('--max-memory', default='1400MB', metavar='SIZE',
                          help='memory limit (default: 1400MB)')
    speed = commands.add_parser(
        'speed', help='a raster with the packed engine, against the same network in torch')
    speed.add_argument('raster', metavar='RASTER', help='raster to predict')
    speed.add_argument('packed', metavar='BHV', help='packed model')
    speed.add_argument('config', help='config it was exported from')
    speed.add_argument('checkpoint', help='checkpoint it was exported from')
    speed.add_argument('--threads', type=int, default=1, metavar='N',
                       help='threads of each (default: 1)')
    speed.add_argument('--overlap', type=float, default=0.25, metavar='FRACTION',
                       help='fraction of a window that its neighbour covers too (default: 0.25)')
    for each in (pipeline, speed):
        each.add_argument('--window', type=int, default=512, metavar='PIXELS',
                          help='side of the windows (default: 512)')
        each.add_argument('--out', default='work_dirs/benchmark_raster', metavar='DIR',
                          help='folder of rasters and results '
                               '(default: work_dirs/benchmark_raster)')
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.command == 'pipeline':
        result = benchmark_pipeline(args.packed, args.out, args.side, args.window,
                                    parse_memory(args.max_memory))
    else:
        result = benchmark_speed(args.raster, args.packed, args.config, args.checkpoint, args.out,
                                 args.threads, args.window, args.overlap)
    print(render(result))
    return 0


if __name__ == '__main__':
    sys.exit(main())
