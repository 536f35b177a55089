"""How fast the engine is on this processor, and whether its kernels compute what they should."""

from __future__ import annotations

import math
import os
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .engine import (
    check_isa,
    instruction_sets,
    load_engine,
    open_file,
    processor_limits,
    run,
)

STRIDES = (4, 8, 16, 32)
GROUPS = 4
# BHViT-Tiny with binary downsampling and a SegFormer head of 128 channels: `architecture` of
# docs/packed.md.
TINY = (3, 2, 2, 6, 2, 64, 128, 256, 512, 512, 1024, 1024, 2048, 1, 1, 4, 8, 7, 1, 0, 128, 2, 0, 1)


@dataclass(frozen=True)
class Speed:
    """Times of one image.

    Attributes:
        milliseconds, median: The least and the median of all calls.
        products: Binary and float products (multiply and accumulate) of an image.
        share: Of the time that these take at best, on as many cores as threads.
    """

    milliseconds: float
    median: float
    products: float
    share: float

    @property
    def rate(self) -> float:
        """Products a second, in billions."""
        return self.products / self.milliseconds / 1e6


def count_products(architecture: Sequence[int], pool_scales: Sequence[int], height: int,
                   width: int) -> dict[str, tuple[float, float]]:
    """Count the products of each of the engine's regions.

    Args:
        architecture, pool_scales: Of a packed model (docs/packed.md).
        height, width: Of the image, in pixels.

    Returns:
        Binary and float products by region.
    """
    in_channels, window, binary_downsampling, uper = architecture[0], *architecture[17:20]
    depths, channels, hidden = architecture[1:5], architecture[5:9], architecture[9:13]
    head, classes = architecture[20:22]
    divisor = architecture[23] if len(architecture) > 23 else 1
    height, width = (-(-side // divisor) * divisor for side in (height, width))
    sizes = [(-(-height // s), -(-width // s)) for s in STRIDES]
    tokens = [h * w for h, w in sizes]
    counts: dict[str, tuple[float, float]] = {}

    def add(region: str, binary: float = 0, floating: float = 0) -> None:
        before = counts.get(region, (0, 0))
        counts[region] = (before[0] + binary, before[1] + floating)

    add('stem', floating=tokens[0] * 16 * in_channels * channels[0])
    for s, (n, c) in enumerate(zip(tokens, channels)):
        if s:
            products = n * 4 * channels[s - 1] * c
            add('downsampling', *((products, 0) if binary_downsampling else (0, products)))
        add('mlp', depths[s] * 2 * n * c * hidden[s], depths[s] * 9 * n * c)
        if s < 2:
            add('msgdc', depths[s] * 3 * 9 * n * c * c // GROUPS)
            continue
        cells = math.prod(-(-side // window) for side in sizes[s])
        add('qkv', depths[s] * 3 * (n + cells) * c * c)
        # queries of every window meet its tokens and all pooled ones; the values in two bit planes
        sides = [[min(window, side - i) for i in range(0, side, window)] for side in sizes[s]]
        pairs = sum((h * w + cells)**2 for h in sides[0] for w in sides[1])
        add('attention', depths[s] * 3 * pairs * c)
        add('output', depths[s] * n * c * c)
    if uper:
        add('pyramid', sum(scale * scale for scale in pool_scales) * channels[3] * head)
        add('bottleneck', tokens[3] * 9 * (channels[3] + len(pool_scales) * head) * head)
        add('laterals', sum(n * c * head for n, c in zip(tokens[:3], channels)))
        add('fpn', sum(n * 9 * head * head for n in tokens[:3]))
        add('fpn bottleneck', tokens[0] * 9 * 4 * head * head)
        add('classifier', floating=tokens[0] * head * classes)
    else:
        add('head levels', sum(n * c * head for n, c in zip(tokens[1:], channels[1:])))
        add('head fusion', tokens[0] * (4 * head + channels[0]) * head,
            tokens[0] * head * classes)
    return counts


def load(path: str | os.PathLike, threads: int, isa: str | None = None) -> Any:
    """Return the ``_engine.Engine`` of a packed model; a UserError if it cannot be loaded."""
    return run(load_engine().Engine, open_file(path), threads, check_isa(isa))


def measure(engine: Any, size: tuple[int, int], limits: tuple[float, float],
            seconds: float = 1) -> Speed:
    """Time predictions of a random image.

    Args:
        engine: See :func:`load`.
        size: Height and width of the image in pixels.
        limits: See :func:`processor_limits`.
        seconds: Calls are timed for so long, and there are at least three.
    """
    image = np.random.default_rng(0).integers(0, 256, (*size, engine.in_channels), np.uint8)
    run(engine.predict, image)
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        run(engine.predict, image)
        times.append(time.perf_counter() - start)
    counts = count_products(engine.architecture, engine.pool_scales, *size).values()
    binary, floating = (sum(kind) for kind in zip(*counts))
    floor = (binary / limits[0] + floating / limits[1]) / engine.threads
    return Speed(1e3 * min(times), 1e3 * statistics.median(times), binary + floating,
                 floor / min(times))


def check_engine() -> tuple[str, list[str]]:
    """Compare all kernels with the serial ones, and time a network of Tiny's size.

    Returns:
        A line about the engine, and a sentence for each instruction set whose kernels differ.

    Raises:
        UserError: The engine is not built, or ``BHVIT_ISA`` is not one of this processor.
    """
    engine, names = load_engine(), instruction_sets()
    differences = {name: run(engine.self_test, name) for name in names}
    tiny = run(engine.Engine.random, TINY, 1)
    speed = measure(tiny, (224, 224), processor_limits(tiny.isa), 0.5)
    return (f'{", ".join(names)}; Tiny at 224×224 on one thread of {tiny.isa}: '
            f'{speed.milliseconds:.1f} ms, {speed.rate:.0f} GMAC/s, {100 * speed.share:.0f} % of '
            'the limit'), [
        f'the {name} kernels of the engine do not compute on this processor what the serial ones '
        f'do ({difference}): set the environment variable BHVIT_ISA=serial, and please report it '
        'with the name of the processor' for name, difference in differences.items() if difference]


def processor_name() -> str:
    """Return the name of the processor, or of the board."""
    for path, pattern in (('/proc/cpuinfo', r'^model name\s*:\s*(.+)'),
                          ('/proc/device-tree/model', r'([^\0]+)')):
        try:
            found = re.search(pattern, Path(path).read_text(errors='replace'), re.MULTILINE)
        except OSError:
            continue
        if found:
            return found[1].strip()
    import platform

    return platform.processor() or platform.machine()
