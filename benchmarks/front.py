"""Accuracy over time, of trained networks as users would run them: ``python -m benchmarks.front``.

Binary networks run as bits, others in OpenVINO, in float32 and quantized to int8 with images of the
training split. Each is scored so on the val split of its data, and timed on one thread on an image
of 512 pixels, interleaved in one run.
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import numpy as np
import torch
from torch import nn

from benchmarks.latency.baselines.baseline import EXTRA
from benchmarks.latency.baselines.exports import Exports
from benchmarks.latency.baselines.network import WholeNetwork
from benchmarks.latency.baselines.openvino_baselines import fp32, int8
from benchmarks.latency.timing import load_model, time_interleaved
from benchmarks.machine import machine
from benchmarks.scoring import Split, score
from bhvit_seg.errors import UserError, command
from bhvit_seg.extras import install_line
from bhvit_seg.fileio import make_output_folder, write_atomically, write_json, write_text
from bhvit_seg.models.layers import binary_layers
from bhvit_seg.native import PackedSegmentor
from bhvit_seg.native.onnx_network import Pixels
from bhvit_seg.native.packing import pack_model
from bhvit_seg.training.config import load_config

Predict = Callable[[np.ndarray], np.ndarray]
ENGINES: dict[str, Callable[[Exports, int, str], Predict]] = {
    'OpenVINO fp32': fp32, 'OpenVINO int8': int8}
PACKED = 'packed'
MARKERS = {PACKED: ('o', '#d1495b'), 'OpenVINO fp32': ('s', '#66a182'),
           'OpenVINO int8': ('^', '#2e86ab')}
NETWORK = 'trained'
CALIBRATION_IMAGES = 32


@dataclass
class Point:
    """A network in an engine.

    Attributes:
        data, name, engine: What it is.
        classes: IoU of each class on val, per cent.
        images: Images of val.
        min_ms, median_ms: Time of an image of ``size`` pixels, one thread.
        config, checkpoint: Where it comes from.
    """

    data: str
    name: str
    engine: str
    config: str
    checkpoint: str
    classes: dict[str, float]
    images: int
    size: int
    min_ms: float = float('nan')
    median_ms: float = float('nan')

    @property
    def iou(self) -> float:
        """The IoU of the class of interest, the second of two, or the mean."""
        values = list(self.classes.values())
        return values[1] if len(values) == 2 else float(np.nanmean(values))

    @property
    def metric(self) -> str:
        return f'{list(self.classes)[1]} IoU' if len(self.classes) == 2 else 'mean IoU'


class Network:
    """A trained network, and functions from an image to labels for images of any size.

    Args:
        config, checkpoint: Where it comes from.
        data_root: The folder of its data.
        folder: For exported files.
    """

    def __init__(self, config: str, checkpoint: str, data_root: str, folder: Path) -> None:
        cfg = load_config(config, None, data_root)
        self.model: nn.Module = load_model(cfg, config, checkpoint)
        self.val, self.train = (Split(config, data_root, split) for split in ('val', 'train'))
        self.folder = folder
        self.packed = bool(binary_layers(self.model.backbone))
        self.engines = [PACKED] if self.packed else list(ENGINES)
        self._exports: dict[tuple[int, int], Exports] = {}
        if self.packed:
            pack_model(self.model, folder / 'model.bhv')

    def predictor(self, engine: str) -> Predict:
        """Return a function from ``(H, W, 3)`` uint8 to labels, which exports each size once."""
        if engine == PACKED:
            return PackedSegmentor(self.folder / 'model.bhv', threads=1).predict
        made: dict[tuple[int, int], Predict] = {}
        divisor = getattr(self.model.data_preprocessor, 'divisor', 1)

        def predict(image: np.ndarray) -> np.ndarray:
            height, width = image.shape[:2]
            bottom, right = -height % divisor, -width % divisor
            if bottom or right:  # as the data preprocessor does
                image = np.pad(image, [(0, bottom), (0, right), (0, 0)], 'reflect')
            size = image.shape[:2]
            if size not in made:
                made[size] = ENGINES[engine](self.exports(size), 1, NETWORK)
            return made[size](image)[:height, :width]

        return predict

    def exports(self, size: tuple[int, int]) -> Exports:
        """Return the files of the network for images of a size."""
        if size not in self._exports:
            count = min(CALIBRATION_IMAGES, len(self.train))
            images = [resized(self.train[i * len(self.train) // count].image, size)
                      for i in range(count)]
            other = WholeNetwork(self.model.backbone, self.model.decode_head,
                                 Pixels(self.model), size)
            self._exports[size] = Exports(self.model, size, self.folder, images,
                                          others={NETWORK: other})
        return self._exports[size]


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image at another size."""
    import cv2

    return image if image.shape[:2] == size else cv2.resize(image, size[::-1])


def measure(rows: Sequence[tuple[str, str, str, str]], size: int = 512, rounds: int = 10,
            seconds: float = 20, say: Callable[[str], None] = print) -> list[Point]:
    """Score and time networks.

    Args:
        rows: Name, config, checkpoint and data root of each.
        size: Side of the image that is timed, pixels.
        rounds, seconds: As for :func:`benchmarks.latency.timing.time_interleaved`.
        say: Called with each line of progress.

    Raises:
        UserError: Something given is wrong, or OpenVINO is missing.
    """
    points: list[Point] = []
    predicts: dict[str, Predict] = {}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        for index, (name, config, checkpoint, root) in enumerate(rows):
            folder = Path(temporary) / str(index)
            folder.mkdir()
            network = Network(config, checkpoint, root, folder)
            if not network.packed:
                require_openvino(name)
            for engine in network.engines:
                say(f'scoring {name}, {engine}, on {root}')
                predict = network.predictor(engine)
                found = score(predict, network.val, network.val.classes)
                points.append(Point(Path(root).name, name, engine, Path(config).stem, checkpoint,
                                    found['IoU'], found['images'], size))
                say(f'{points[-1].metric} {points[-1].iou:.2f}')
                predicts[str(len(points) - 1)] = predict
            image = resized(network.val[0].image, (size, size))
        say('timing')
        times = time_interleaved(predicts, image, rounds, seconds)
    for key, found in times.items():
        point = points[int(key)]
        point.min_ms, point.median_ms = 1e3 * min(found), 1e3 * statistics.median(found)
    return points


def require_openvino(name: str) -> None:
    """Raise a UserError if OpenVINO or NNCF is missing."""
    import importlib.util

    for package in ('onnx', 'openvino', *['nncf'] * ('OpenVINO int8' in ENGINES)):
        if importlib.util.find_spec(package) is None:
            raise UserError(f'{name} is not binary and runs in OpenVINO, but {package} is not '
                            f'installed: {install_line(EXTRA)}')


def markdown(points: Sequence[Point], about: dict[str, Any]) -> str:
    """Return the table, by data and time."""
    lines = ['| data | network | engine | IoU, % | ms | median |', '|---|---|---|---:|---:|---:|']
    lines += [f'| {p.data}, {p.metric} | {p.name} | {p.engine} | {p.iou:.1f} | {p.min_ms:.1f} '
              f'| {p.median_ms:.1f} |'
              for p in sorted(points, key=lambda p: (p.data, p.min_ms))]
    return '\n'.join([
        *lines, '', f'IoU on val in that engine; ms: least time of an image of {points[0].size}×'
        f'{points[0].size} pixels, one thread, all in one run on {about["processor"]}; '
        + ', '.join(f'{name} {version}' for name, version in about['versions'].items()) + '.', ''])


def table(points: Sequence[Point]) -> str:
    """Return all values as CSV."""
    text = io.StringIO()
    rows = [{**asdict(point), 'classes': '; '.join(
        f'{name} {iou:.3f}' for name, iou in point.classes.items()),
        'metric': point.metric, 'iou': point.iou} for point in points]
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def plot(points: Sequence[Point], path: Path) -> None:
    """Draw IoU over milliseconds, a panel for each data set."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    sets = sorted({point.data for point in points})
    figure = Figure(figsize=(5.5 * len(sets), 4.5), layout='constrained')
    for axis, data in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets):
        shown = [point for point in points if point.data == data]
        for point in shown:
            marker, colour = MARKERS[point.engine]
            axis.plot(point.min_ms, point.iou, marker, color=colour, markersize=8)
        # A name once, for its points join each other by a line.
        for name in dict.fromkeys(point.name for point in shown):
            line = sorted((point.min_ms, point.iou) for point in shown if point.name == name)
            axis.plot(*zip(*line), color='grey', linewidth=0.8, zorder=0)
            axis.annotate(name, line[-1], (8, -3), fontsize=8, textcoords='offset points')
        axis.set_xscale('log')
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter('{x:g}')
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.margins(0.2)
        axis.grid(alpha=0.3)
        axis.spines[['top', 'right']].set_visible(False)
        axis.set_title(data, loc='left', fontsize=10)
        axis.set_xlabel(f'ms for {shown[0].size}×{shown[0].size} pixels, one thread')
        axis.set_ylabel(f'{shown[0].metric} on val, %')
    present = {point.engine for point in points}
    for engine, (marker, colour) in MARKERS.items():
        if engine in present:
            axis.plot([], [], marker, color=colour, label=engine)
    figure.legend(loc='outside lower center', ncols=len(present), fontsize=8, frameon=False)
    with write_atomically(path) as partial:
        figure.savefig(partial, dpi=130)


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.front', description=__doc__,
        epilog='Writes front.csv, front.md, front.json and front.png.')
    parser.add_argument('--row', nargs=4, action='append', required=True,
                        metavar=('NAME', 'CONFIG', 'CHECKPOINT', 'DATA_ROOT'),
                        help='a trained network; give one for each')
    parser.add_argument('--size', type=int, default=512, help='side of the image that is timed, '
                                                              'pixels (default: 512)')
    parser.add_argument('--rounds', type=int, default=10,
                        help='rounds of each, of up to five calls (default: 10)')
    parser.add_argument('--seconds', type=float, default=20,
                        help='timed seconds of each, about (default: 20)')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder of the results')
    args = parser.parse_args(argv)
    folder = make_output_folder(args.out, '--out')
    about = machine()
    points = measure(args.row, args.size, args.rounds, args.seconds)
    write_json(folder / 'front.json', {**about, 'points': [asdict(point) for point in points]})
    write_text(folder / 'front.csv', table(points))
    write_text(folder / 'front.md', markdown(points, about))
    plot(points, folder / 'front.png')
    print(markdown(points, about), end='')


if __name__ == '__main__':
    main()
