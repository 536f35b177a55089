"""OpenVINO in fp32, bf16 and int8, of the folded network and of SegFormer-B0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np

from .exports import Exports, quiet
from .folding import Form

Predict = Callable[[np.ndarray], np.ndarray]
FORM = Form(vertical=True, planar=True)
# The largest logit needs its precision.
NOT_QUANTIZED = ['/labels/.*']
# Around binary products, what else NNCF would quantize costs more passes than it saves.
GLUE = ['Add', 'Multiply', 'Subtract', 'PRelu', 'Interpolate', 'ReduceMean', 'MVN', 'Gelu']


def supports_bf16() -> bool:
    """Whether this processor multiplies bfloat16."""
    import openvino

    return 'BF16' in openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')


def _compile(model: Any, threads: int, precision: str) -> Predict:
    import openvino

    compiled = openvino.Core().compile_model(model, 'CPU', {
        'PERFORMANCE_HINT': 'LATENCY', 'NUM_STREAMS': '1', 'INFERENCE_NUM_THREADS': threads,
        'INFERENCE_PRECISION_HINT': precision})
    request = compiled.create_infer_request()

    def predict(image: np.ndarray) -> np.ndarray:
        request.set_input_tensor(openvino.Tensor(image, shared_memory=True))
        request.infer()
        return request.get_output_tensor().data.copy()

    return predict


def quantize(exports: Exports, onnx: Path, not_types: Sequence[str] = ()) -> Path:
    """Quantize an ONNX file by NNCF's post-training quantization, unless that was done.

    Args:
        exports: Where images for calibration are.
        onnx: The file.
        not_types: Operations that stay as they are.
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


def fp32(exports: Exports, threads: int) -> Predict:
    return _compile(exports.onnx('openvino', FORM), threads, 'f32')


def bf16(exports: Exports, threads: int) -> Predict:
    return _compile(exports.onnx('openvino', FORM), threads, 'bf16')


def int8(exports: Exports, threads: int) -> Predict:
    return _compile(quantize(exports, exports.onnx('openvino', FORM), GLUE), threads, 'f32')


def int8_bf16(exports: Exports, threads: int) -> Predict:
    """What is not int8 is bf16."""
    return _compile(quantize(exports, exports.onnx('openvino', FORM), GLUE), threads, 'bf16')


def segformer_fp32(exports: Exports, threads: int) -> Predict:
    return _compile(exports.onnx('segformer'), threads, 'f32')


def segformer_int8(exports: Exports, threads: int) -> Predict:
    return _compile(quantize(exports, exports.onnx('segformer')), threads, 'f32')
