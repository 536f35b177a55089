"""Latency of a packed segmentor and of baselines."""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

from benchmarks.latency.baselines.baseline import PACKED, Baseline, Packed, choose
from benchmarks.latency.baselines.exports import Exports
from benchmarks.latency.baselines.random_weights import randomize
from benchmarks.machine import machine
from bhvit_seg.datasets.synthetic import generate_scene
from bhvit_seg.errors import UserError
from bhvit_seg.extras import missing_package
from bhvit_seg.fileio import make_output_folder, write_json
from bhvit_seg.models.weights import load_weights
from bhvit_seg.training.config import explain_config_errors, load_config, require_settings

CALIBRATION_IMAGES = 8
# Idle threads of an engine spin for some milliseconds after its last call.
PAUSE = 0.05
BURST_CALLS, BURST_SECONDS = 5, 0.5
SERIAL = 'serial'


@dataclass
class Latency:
    """Times of one entry at one image size and thread count.

    Attributes:
        name, description, group: See :class:`~benchmarks.latency.baselines.baseline.Baseline`.
        size: Height and width of the image.
        threads: Number of threads.
        calls: Timed calls.
        min_ms, median_ms, p95_ms: Over the calls.
        agreement: Fraction of pixels with the same label as the network simulated in torch's
            float32 (another network: as its own torch model).
        ratio: Its minimum over that of the fastest packed entry; None without one.
    """

    name: str
    description: str
    group: str
    size: tuple[int, int]
    threads: int
    calls: int
    min_ms: float
    median_ms: float
    p95_ms: float
    agreement: float
    ratio: float | None = None


def scenes(count: int, size: tuple[int, int], channels: int) -> list[np.ndarray]:
    """Synthetic images ``(H, W, C)`` uint8; channels past the third repeat the first ones."""
    larger = tuple(max(length, 32) for length in size)
    return [np.ascontiguousarray(np.resize(
        generate_scene(seed, larger).image[:size[0], :size[1]].transpose(2, 0, 1),
        (channels, *size)).transpose(1, 2, 0)) for seed in range(count)]


def load_model(cfg: Config, path: str | Path, checkpoint: str | Path | None) -> nn.Module:
    """Build the segmentor with its weights, or with random ones.

    Raises:
        UserError: The config or the checkpoint does not fit.
    """
    require_settings(cfg, path, 'model')
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    cfg.model.pop('init_cfg', None)
    with explain_config_errors():
        model = MODELS.build(cfg.model)
    if checkpoint is not None:
        load_weights(model, checkpoint)
    else:
        randomize(model, scenes(2, (224, 224), model.backbone.in_channels))
    return model.eval().requires_grad_(False)


def packed_entries(serial: bool) -> list[Packed]:
    """The packed engine on each instruction set that this processor has."""
    from bhvit_seg.native import instruction_sets

    names = [name for name in instruction_sets() if serial or name != SERIAL]
    return [Packed.on(name) for name in names or [SERIAL]]


def time_interleaved(predicts: dict[str, Callable[[np.ndarray], np.ndarray]], image: np.ndarray,
                  rounds: int, seconds: float) -> dict[str, list[float]]:
    """Time interleaved calls, so that other load on the machine affects all in the same way.

    A round of each is a pause, in which threads of the previous one stop spinning, a call that is
    not timed, and a burst of timed calls.

    Args:
        predicts: The functions, by name.
        image: Their argument.
        rounds: Rounds of each.
        seconds: Timed seconds after which one has no further round; each has at least one.

    Returns:
        Seconds of each call, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in predicts}
    enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, predict in predicts.items():
                if sum(times[name]) > seconds:
                    continue
                time.sleep(PAUSE)
                predict(image)
                spent = 0.0
                for _ in range(BURST_CALLS):
                    start = time.perf_counter()
                    predict(image)
                    elapsed = time.perf_counter() - start
                    times[name].append(elapsed)
                    spent += elapsed
                    if spent > BURST_SECONDS:
                        break
    finally:
        if enabled:
            gc.enable()
    return times


def measure(entries: Sequence[Baseline], exports: Exports, threads: int, rounds: int,
            seconds: float, say: Callable[[str], None] = print) -> list[Latency]:
    """Build all entries for one size and thread count, and time interleaved calls of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        image = exports.images[0]
        predicts, agreements = {}, {}
        labels = exports.simulated(image)
        for entry in entries:
            say(f'preparing {entry.name}')
            predict = entry.build(exports, threads)
            truth = labels
            if entry.group == 'other':
                with torch.inference_mode():
                    truth = exports.other(entry.network)(torch.from_numpy(image)).numpy()
            got = predict(image)
            if got.shape != truth.shape:
                raise AssertionError(f'{entry.name}: labels {got.shape}, not {truth.shape}')
            agreements[entry.name] = float((got == truth).mean())
            predicts[entry.name] = predict
        say('timing')
        times = time_interleaved(predicts, image, rounds, seconds)
    finally:
        torch.set_num_threads(before)
    results = []
    for entry in entries:
        ms = sorted(1e3 * t for t in times[entry.name])
        results.append(Latency(
            entry.name, entry.description, entry.group, exports.size, threads,
            len(ms), ms[0], statistics.median(ms), float(np.percentile(ms, 95)),
            agreements[entry.name]))
    packed = [result.min_ms for result in results if result.group == PACKED]
    for result in results if packed else ():
        result.ratio = result.min_ms / min(packed)
    return results


def benchmark_latency(config: str | Path,
                      checkpoint: str | Path | None = None,
                      packed: str | Path | None = None,
                      sizes: Sequence[int] = (224, 512),
                      threads: Sequence[int] = (1, 2),
                      baselines: Sequence[str] | None = None,
                      rounds: int = 10,
                      seconds: float = 20,
                      out: str | Path | None = None,
                      serial: bool = False,
                      without_packed: bool = False,
                      cfg_options: dict[str, Any] | None = None,
                      say: Callable[[str], None] = print) -> dict[str, Any]:
    """Time the packed engine and its baselines on whole images, up to labels at the image's size.

    Args:
        config: The config file.
        checkpoint: Its weights. Defaults to random ones, which take as long.
        packed: The packed model of these weights. Defaults to exporting it.
        sizes: Sides of square images in pixels.
        threads: Thread counts.
        baselines: Names in :data:`~benchmarks.latency.baselines.baseline.BASELINES`. Defaults to
            all.
        rounds: Rounds of each entry.
        seconds: Timed seconds of each entry, about, at each size and thread count.
        out: Folder for ``latency.json`` and ``latency.png``. Defaults to none.
        serial: Whether the packed engine's slow reference is timed too.
        without_packed: Leave the packed engine out.
        cfg_options: Settings that override the config's, by dotted key.
        say: Called with each line of progress.

    Returns:
        ``results``, a dict for each :class:`Latency`; ``config``, ``checkpoint``, ``left_out``, and
        what :func:`~benchmarks.machine.machine` returns.

    Raises:
        UserError: Something given is wrong.
    """
    for name, values in (('--sizes', sizes), ('--threads', threads), ('--rounds', [rounds])):
        if not values or min(values) < 1:
            raise UserError(f'{name} is {" ".join(map(str, values))}; expected numbers from 1')
    if max(threads) > (os.cpu_count() or 1):
        raise UserError(f'--threads asks for {max(threads)}, but this machine has '
                        f'{os.cpu_count()} cores: give no more than that')
    chosen = choose(None if baselines is None else list(baselines))
    if packed is not None and checkpoint is None:
        raise UserError('--packed needs the checkpoint that it was exported from: without it the '
                        'labels cannot be compared')
    if packed is not None and not Path(packed).is_file():
        raise UserError(f'no packed model at {packed}: export one with bhvit-seg export, '
                        'or leave --packed out')
    folder = None if out is None else make_output_folder(out, '--out')
    cfg = load_config(config, cfg_options)
    model = load_model(cfg, config, checkpoint)

    left_out = [reason for reason in (baseline.missing() for baseline in chosen) if reason]
    for reason in left_out:
        say(reason)
    entries: list[Baseline] = [baseline for baseline in chosen if not baseline.missing()]
    if not without_packed:
        entries = [*packed_entries(serial), *entries]
    results: list[Latency] = []
    with tempfile.TemporaryDirectory() as temporary:
        if not without_packed and packed is None:
            from bhvit_seg.native.packing import pack_model

            packed = Path(temporary) / 'model.bhv'
            pack_model(model, packed)
        for side in sizes:
            size = (side, side)
            images = scenes(CALIBRATION_IMAGES, size, model.backbone.in_channels)
            exports = Exports(model, size, Path(temporary), images,
                              None if packed is None else Path(packed))
            for count in threads:
                say(f'{side}×{side}, {count} thread{"s" if count > 1 else ""}')
                results += measure(entries, exports, count, rounds, seconds, say)
    record = dict(
        config=str(config), checkpoint=None if checkpoint is None else str(checkpoint),
        **machine(), left_out=left_out, results=[asdict(result) for result in results])
    if folder is not None:
        from benchmarks.latency.report import plot

        write_json(folder / 'latency.json', record)
        try:
            plot(record, folder / 'latency.png')
        except ImportError:
            say(f'no plot: {missing_package("matplotlib")}')
    return record
