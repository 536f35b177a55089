"""torch: the network as it was trained, and folded."""

from __future__ import annotations

from typing import Callable

import numpy as np
import torch

from .exports import Exports

Predict = Callable[[np.ndarray], np.ndarray]


def simulated(exports: Exports, threads: int, network: str) -> Predict:
    """The trained network as it is; ``threads`` are torch's, which the benchmark sets."""
    return exports.simulated


def eager(exports: Exports, threads: int, network: str) -> Predict:
    """The folded network, weights binarized once."""
    module = exports.folded()

    @torch.inference_mode()
    def predict(image: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(image)).numpy()

    return predict
