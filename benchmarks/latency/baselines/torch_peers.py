"""torch itself: the network as it was trained, folded and eager, folded and compiled."""

from __future__ import annotations

from typing import Callable

import numpy as np
import torch

from .exports import Exports, quiet
from .folding import Form

Predict = Callable[[np.ndarray], np.ndarray]


def simulated(exports: Exports, threads: int) -> Predict:
    """The trained network as it is; ``threads`` are torch's, which the benchmark sets."""
    return exports.simulated


def eager(exports: Exports, threads: int) -> Predict:
    """The folded network, weights binarized once."""
    module = exports.folded(Form())

    @torch.inference_mode()
    def predict(image: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(image)).numpy()

    return predict


def compiled(exports: Exports, threads: int) -> Predict:
    """The folded network through ``torch.compile``, which needs a C++ compiler.

    Its weights are frozen, so that they are packed for oneDNN beforehand.
    """
    from torch._inductor import config

    torch._dynamo.reset()
    module = torch.compile(exports.folded(Form(whole=True)), dynamic=False)

    @torch.no_grad()
    def predict(image: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(image)).numpy()

    with config.patch(freezing=True), quiet():
        predict(exports.images[0])
    return predict
