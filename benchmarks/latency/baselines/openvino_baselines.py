"""OpenVINO in fp32 and int8, of the folded network and of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np

from bhvit_seg.native.onnx_export import quiet

from .exports import FOLDED, Exports

Predict = Callable[[np.ndarray], np.ndarray]
# Labels depend on small differences of logits.
NOT_QUANTIZED = ['/labels/.*']
# Quantizing these operations around binary products costs more passes than it saves.
GLUE = ['Add', 'Multiply', 'Subtract', 'PRelu', 'Interpolate', 'ReduceMean', 'MVN', 'Gelu']


def _compile(model: Any, threads: int, precision: str | None = None) -> Predict:
    import openvino

    settings = {'PERFORMANCE_HINT': 'LATENCY', 'NUM_STREAMS': '1', 'INFERENCE_NUM_THREADS': threads}
    if precision is not None:
        settings['INFERENCE_PRECISION_HINT'] = precision
    compiled = openvino.Core().compile_model(model, 'CPU', settings)
    request = compiled.create_infer_request()

    def predict(image: np.ndarray) -> np.ndarray:
        request.set_input_tensor(openvino.Tensor(image, shared_memory=True))
        request.infer()
        return request.get_output_tensor().data.copy()

    return predict


def quantize(exports: Exports, onnx: Path, not_types: Sequence[str] = ()) -> Path:
    """Quantize an ONNX file by NNCF's post-training quantization, unless that was done.

    Args:
        exports: Has the images for calibration.
        onnx: The file.
        not_types: Types of operations that are not quantized.
    """
    import nncf
    import openvino

    path = onnx.with_suffix('.int8.xml')
    if not path.exists():
        with quiet():
            model = nncf.quantize(
                openvino.Core().read_model(onnx), nncf.Dataset(exports.images),
                subset_size=len(exports.images),
                ignored_scope=nncf.IgnoredScope(patterns=NOT_QUANTIZED, types=list(not_types),
                                               validate=False))
            openvino.save_model(model, path, compress_to_fp16=False)
    return path


def fp32(exports: Exports, threads: int, network: str) -> Predict:
    return _compile(exports.onnx(network), threads, 'f32')


def int8(exports: Exports, threads: int, network: str) -> Predict:
    """The rest in bfloat16 where the processor has products of it, which is OpenVINO's default."""
    glue = GLUE if network == FOLDED else ()
    return _compile(quantize(exports, exports.onnx(network), glue), threads)
