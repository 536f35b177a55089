"""Cost of a training step, binary and full-precision: ``python -m benchmarks.training CONFIG``."""

from __future__ import annotations

import argparse
import copy
import gc
import multiprocessing
import resource
import statistics
import time
from pathlib import Path
from typing import Any, Callable

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from bhvit_seg.commands.arguments import add_cfg_options
from bhvit_seg.errors import UserError, command
from bhvit_seg.fileio import write_json
from bhvit_seg.training.config import explain_config_errors, load_config

WARM_UP = 2
_SWITCHED = ('BHViT', 'BinaryResNet', 'BinaryViT', 'BinarySegformerHead', 'BinaryUPerHead',
             'BinaryConv2d', 'BinaryLinear')


def full_precision_twin(model: dict) -> dict:
    """Return a model config with ``binary=False`` wherever our classes take it."""

    def switch(node: Any) -> Any:
        if isinstance(node, dict):
            node = {key: switch(value) for key, value in node.items()}
            if node.get('type') in _SWITCHED:
                node['binary'] = False
        elif isinstance(node, (list, tuple)):
            node = type(node)(switch(value) for value in node)
        return node

    return switch(copy.deepcopy(dict(model)))


class TrainingStep:
    """A model with its optimizer and a random batch of the shape that its config trains on.

    Args:
        cfg: The whole config.
        model: The model's config.
        batch_size: Images in the batch.
        size: Height and width in pixels.
        device: The device.
        amp: Whether to use mixed precision.
    """

    def __init__(self, cfg: Config, model: dict, batch_size: int, size: tuple[int, int],
                 device: str, amp: bool) -> None:
        torch.manual_seed(0)
        init_default_scope('mmseg')
        self.device = torch.device(device)
        self.model: nn.Module = MODELS.build(model).to(self.device)
        # training pads to the config's crop, which is not what is asked for here
        self.model.data_preprocessor.size = size
        optimizer = dict(cfg.optim_wrapper)
        if amp:
            optimizer['type'] = 'AmpOptimWrapper'
        self.optimizer: OptimWrapper = build_optim_wrapper(self.model, optimizer)
        channels = self.model.backbone.in_channels
        self.batch = dict(inputs=[], data_samples=[])
        for _ in range(batch_size):
            self.batch['inputs'].append(torch.randint(0, 256, (channels, *size)).byte())
            labels = torch.randint(0, self.model.num_classes, (1, *size))
            self.batch['data_samples'].append(SegDataSample(
                metainfo=dict(img_shape=size, ori_shape=size), gt_sem_seg=PixelData(data=labels)))

    def train(self) -> None:
        """One iteration: forward, losses, backward, optimizer."""
        self.model.train()
        self.model.train_step(copy.deepcopy(self.batch), self.optimizer)

    @torch.no_grad()
    def evaluate(self) -> None:
        """Forward alone, up to the logits."""
        self.model.eval()
        self.model(self.model.data_preprocessor(copy.deepcopy(self.batch))['inputs'])

    def seconds(self, step: Callable[[], None]) -> float:
        """Time of one call, after the device has finished."""
        start = time.perf_counter()
        step()
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start


def highest_memory() -> int:
    """Bytes of resident memory that this process had at its peak.

    ``getrusage`` would also count what the parent process had before it started this one.
    """
    status = Path('/proc/self/status')
    if status.exists():
        line, = (line for line in status.read_text().splitlines() if line.startswith('VmHWM'))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def peak_memory(device: str, step: Callable[..., None], *args: Any) -> int:
    """Bytes that ``step(*args)`` takes on the device at its peak.

    On a CPU it runs in a process of its own, where they are what it adds to resident memory; on a
    GPU, in this one, they include whatever this process already has there.
    """
    if device.startswith('cuda'):
        gc.collect()
        torch.cuda.reset_peak_memory_stats(device)
        step(*args)
        return torch.cuda.max_memory_allocated(device)
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(_added_memory, (step, *args))


def _added_memory(step: Callable[..., None], *args: Any) -> int:
    before = highest_memory()
    step(*args)
    return highest_memory() - before


def _train_twice(config: str | Path, cfg_options: dict[str, Any] | None, twin: bool,
                 arguments: dict[str, Any], threads: int | None) -> None:
    # weights, gradients and the optimizer's state are part of what a step needs
    cfg = load_config(config, cfg_options)
    if threads:
        torch.set_num_threads(threads)
    step = TrainingStep(cfg, full_precision_twin(cfg.model) if twin else cfg.model, **arguments)
    for _ in range(WARM_UP):
        step.train()


def benchmark_training(config: str | Path,
                       batch_size: int | None = None,
                       size: tuple[int, int] | None = None,
                       iterations: int = 10,
                       threads: int | None = None,
                       device: str = 'cpu',
                       amp: bool = False,
                       cfg_options: dict[str, Any] | None = None) -> dict[str, dict[str, float]]:
    """Measure a training step and an evaluation pass of a config and its full-precision twin.

    The two take turns in one process, so that other load on the machine affects both equally; on
    a CPU the peak memory of each is measured in a process of its own.

    Args:
        config: The config file.
        batch_size: Images in a batch. Defaults to the config's.
        size: Height and width in pixels. Defaults to the config's crop.
        iterations: Timed calls of each kind.
        threads: Threads of torch. Defaults to torch's choice.
        device: ``'cpu'`` or ``'cuda'``.
        amp: Mixed precision.
        cfg_options: Settings that override the config's, by dotted key.

    Returns:
        For ``'binary'`` and ``'full precision'``: ``train_ms`` and ``train_median_ms``,
        ``eval_ms`` and ``eval_median_ms`` (minimum and median over the calls, for a batch), and
        ``train_peak_mb``.

    Raises:
        UserError: The config is not one of a trainable model, or the device is missing.
    """
    cfg = load_config(config, cfg_options)
    if not cfg.get('model') or not cfg.get('optim_wrapper'):
        raise UserError(f'the config {config} lacks model or optim_wrapper: give one that '
                        'describes a whole experiment, not a part from _base_')
    if device.startswith('cuda') and not torch.cuda.is_available():
        raise UserError(f'--device {device} needs a GPU, and torch finds none: leave it out')
    if threads:
        torch.set_num_threads(threads)
    arguments = dict(device=device, amp=amp,
                     size=tuple(size or cfg.get('crop_size') or (512, 512)),
                     batch_size=batch_size or cfg.train_dataloader.batch_size)
    models = {'binary': cfg.model, 'full precision': full_precision_twin(cfg.model)}
    times: dict[str, dict[str, list[float]]] = {}
    with explain_config_errors():
        steps = {name: TrainingStep(cfg, model, **arguments) for name, model in models.items()}
    for kind in ('train', 'evaluate'):
        for i in range(WARM_UP + iterations):
            for name, step in steps.items():
                elapsed = step.seconds(getattr(step, kind))
                if i >= WARM_UP:
                    times.setdefault(name, {}).setdefault(kind, []).append(1e3 * elapsed)
    del steps, step
    peaks = {name: peak_memory(device, _train_twice, str(config), cfg_options,
                               name == 'full precision', arguments, threads) for name in models}
    return {name: {
        'train_ms': min(times[name]['train']),
        'train_median_ms': statistics.median(times[name]['train']),
        'eval_ms': min(times[name]['evaluate']),
        'eval_median_ms': statistics.median(times[name]['evaluate']),
        'train_peak_mb': peaks[name] / 2**20} for name in models}


def format_results(results: dict[str, dict[str, float]]) -> str:
    """Return the results as a Markdown table."""
    lines = ['| | training step, ms (median) | evaluation, ms (median) | training peak, MiB |',
             '|---|---|---|---|']
    for name, r in results.items():
        lines.append(f'| {name} | {r["train_ms"]:.0f} ({r["train_median_ms"]:.0f}) '
                     f'| {r["eval_ms"]:.0f} ({r["eval_median_ms"]:.0f}) '
                     f'| {r["train_peak_mb"]:.0f} |')
    return '\n'.join(lines)


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description='Prints the time of a training step and of an evaluation pass, and the peak '
                    'memory of training, for a config and its full-precision twin. Binarization '
                    'is simulated in training, so binary is not expected to be faster.')
    parser.add_argument('config', help='config file')
    parser.add_argument('--batch-size', type=int, help="images in a batch (default: the config's)")
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'),
                        help="height and width in pixels (default: the config's crop)")
    parser.add_argument('--iterations', type=int, default=10, help='timed steps (default: 10)')
    parser.add_argument('--threads', type=int, help="threads of torch (default: torch's choice)")
    parser.add_argument('--device', default='cpu', help='cpu or cuda (default: cpu)')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--json', metavar='FILE', help='also write the figures to this file')
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    results = benchmark_training(
        args.config, batch_size=args.batch_size, size=args.size, iterations=args.iterations,
        threads=args.threads, device=args.device, amp=args.amp, cfg_options=args.cfg_options)
    print(format_results(results))
    if args.json:
        write_json(args.json, results)


if __name__ == '__main__':
    main()
