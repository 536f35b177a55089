"""What a row of a suite costs: operations, bytes, and how long an image takes."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from benchmarks.latency.latency import processor, scenes, time_in_turns
from benchmarks.suite.runs import Run
from benchmarks.training import full_precision_twin
from bhvit_seg.errors import UserError
from bhvit_seg.evaluation.complexity_report import build_model, input_channels, measure_complexity
from bhvit_seg.fileio import write_json
from bhvit_seg.native import PackedSegmentor
from bhvit_seg.native.packing import export_packed

COSTS, PACKED = 'costs.json', 'model.bhv'
# What 'auto' narrows depends on the weights, so that rows would differ by chance.
PRECISION = '32'
ROUNDS, SECONDS = 10, 10


def measure_costs(run: Run, size: tuple[int, int], threads: int,
                  say: Callable[[str], None]) -> dict[str, Any]:
    """Count, pack and time the model of a finished run.

    What was found is kept beside the runs of the row and measured again only for another size,
    number of threads, processor or checkpoint.

    Args:
        run: The run whose checkpoint is packed.
        size: Height and width of the image in pixels.
        threads: Threads that the engine and torch may use.
        say: What is called with a line of progress.

    Returns:
        ``complexity`` (the totals, and ``unknown``), ``packed_bytes`` and ``not_packed`` (why it
        is None), and ``latency``: minimum and median milliseconds of ``packed`` and of ``twin``,
        the full-precision twin in torch.

    Raises:
        UserError: The network takes no image of this size.
    """
    path = run.folder.parent / COSTS
    measured = {'size': list(size), 'threads': threads, 'processor': processor(),
                'precision': PRECISION,
                'checkpoint': f'{run.folder.name}/{run.checkpoint.name}',
                'written': run.checkpoint.stat().st_mtime_ns}
    if path.is_file():
        kept = json.loads(path.read_text())
        if kept.get('measured') == measured:
            return kept
    say(f'{run.row.name}: counting and timing')
    config = run.config
    complexity = measure_complexity(config, size)
    costs = {'measured': measured, 'packed_bytes': None, 'not_packed': complexity['not_packed'],
             'complexity': {**complexity['total'], 'unknown': complexity['unknown']}}
    predicts = {'twin': twin_predictor(Config.fromfile(str(config)), config, size)}
    if complexity['packed_bytes'] is not None:
        try:
            report = export_packed(config, run.checkpoint, run.folder.parent / PACKED,
                                   precision=PRECISION, threads=threads)
            predicts['packed'] = PackedSegmentor(report.path, threads).predict
            costs['packed_bytes'] = report.total
        except UserError as error:
            costs['not_packed'] = str(error)
    model_channels = input_channels(build_model(Config.fromfile(str(config)), config))
    costs['latency'] = _time(predicts, scenes(1, size, model_channels)[0], threads)
    write_json(path, costs)
    return costs


def twin_predictor(cfg: Config, path: Path,
                   size: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """Return what labels an image with the full-precision twin of a config, in torch.

    Its weights are random, which take as long as others.
    """
    cfg.model = full_precision_twin(cfg.model)
    model: nn.Module = build_model(cfg, path)

    @torch.inference_mode()
    def predict(image: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        inputs = torch.stack(list(model.data_preprocessor({'inputs': [pixels]})['inputs']))
        logits = model(inputs, mode='tensor')
        logits = nn.functional.interpolate(logits, size, mode='bilinear',
                                           align_corners=model.align_corners)
        return logits.argmax(1)[0].to(torch.uint8).numpy()

    return predict


def _time(predicts: dict[str, Callable[[np.ndarray], np.ndarray]], image: np.ndarray,
          threads: int) -> dict[str, dict[str, float]]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        times = time_in_turns(predicts, image, ROUNDS, SECONDS)
    finally:
        torch.set_num_threads(before)
    return {name: {'min_ms': 1e3 * min(found), 'median_ms': 1e3 * statistics.median(found)}
            for name, found in times.items()}
