"""ONNX Runtime in fp32."""

from __future__ import annotations

from typing import Callable

import numpy as np

from .exports import Exports
from .folding import Form


def fp32(exports: Exports, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """The folded network on ONNX Runtime's CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(exports.onnx('onnxruntime', Form(maximum=True))), options,
        providers=['CPUExecutionProvider'])
    return lambda image: session.run(None, {'image': image})[0]
