"""The cost of a network: multiply-accumulates of real values and of bits, parameters, bytes.

As in Bi-Real Net, ReActNet and BHViT, FLOPs are multiply-accumulates of real values, BOPs those of
±1 (or boolean) values with ±1, and OPs = FLOPs + BOPs / 64. Counted are convolutions, linear layers
and attention, by the formulas of torch's own counter, padding included; element-wise operations are
not. A product without a formula is reported.
"""

import copy
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Callable

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bhvit_seg.errors import UserError
from bhvit_seg.models.layers import BinaryLayer
from bhvit_seg.models.mlp import ShiftBranches
from bhvit_seg.models.quantizers import ATTENTION_QUANTIZERS

BITS_OF_AN_OP = 64
FLOAT_BYTES = 4
WORD_BITS = 32  # packed weights of an output fill whole words
# Of the 25 taps that torch multiplies, the shift branches use a cross: the map itself, and two
# offsets in each of four directions.
SHIFT_TAPS, STENCIL_TAPS = 9, 25
# Products that torch's counter has no formula for.
UNCOUNTED = {getattr(torch.ops.aten, name) for name in (
    'mv', 'addmv', 'dot', 'vdot', 'linalg_vecdot', 'addr', '_cdist_forward', '_euclidean_dist',
    '_trilinear')}


@dataclass
class LayerCost:
    name: str
    kind: str  # type
    flops: int = 0  # multiply-accumulates of real values
    bops: int = 0  # of bits
    binary_parameters: int = 0  # of which one bit each is used
    float_parameters: int = 0
    bytes: int = 0  # four per float parameter; 32-bit words for the bits of each output

    @property
    def ops(self) -> float:
        return self.flops + self.bops / BITS_OF_AN_OP


@dataclass
class Complexity:
    """Cost of a network for one image."""

    size: tuple[int, int]  # height and width in pixels
    layers: list[LayerCost] = field(default_factory=list)  # that multiply or have parameters
    unknown: list[str] = field(default_factory=list)  # ``name (type)`` of layers not counted

    @property
    def total(self) -> LayerCost:
        return LayerCost('total', '', *(sum(getattr(layer, key.name) for layer in self.layers)
                                        for key in fields(LayerCost)[2:]))

    def as_dict(self) -> dict[str, Any]:
        """Return values for JSON."""
        total, *layers = ({**asdict(cost), 'ops': cost.ops} for cost in (self.total, *self.layers))
        return {'size': list(self.size), 'total': total, 'unknown': self.unknown, 'layers': layers}


class _Watch(TorchDispatchMode):
    """Counts products by the layer in whose method they are computed; ``''`` is the model."""

    def __init__(self) -> None:
        super().__init__()
        self.running = ['']
        self.products: Counter[str] = Counter()
        self.uncounted: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        operation, name = func._overloadpacket, self.running[-1]
        if operation in flop_registry:
            # torch counts a multiplication and an addition.
            self.products[name] += flop_registry[operation](
                *args, **(kwargs or {}), out_val=out) // 2
        elif operation in UNCOUNTED:
            self.uncounted.add(name)
        return out

    def inside(self, name: str, method: Callable) -> Callable:
        """Return a method of a layer that says when it runs."""
        def run(*args, **kwargs):
            self.running.append(name)
            try:
                return method(*args, **kwargs)
            finally:
                self.running.pop()
        return run


@torch.no_grad()
def count_complexity(model: nn.Module, size: tuple[int, int], in_channels: int = 3) -> Complexity:
    """Count what a network costs for one image of ``size`` = (height, width).

    The network runs on tensors without values, so that memory does not depend on the size.
    Auxiliary heads do not count.

    Args:
        model: A segmentor of mmseg, or a module that takes images ``(B, C, H, W)``.
    """
    model = copy.deepcopy(model).cpu().eval()
    layers = {'': model, **_inference_layers(model)}
    watch = _Watch()
    for name, layer in layers.items():
        # Other layers call the products of binary layers by themselves.
        for method in ('forward', 'convolve', 'multiply'):
            if method == 'forward' or isinstance(layer, BinaryLayer) and hasattr(layer, method):
                setattr(layer, method, watch.inside(name, getattr(layer, method)))
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # Fused attention has no formula.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH), watch:
            model(torch.empty(1, in_channels, *size))
    except (RuntimeError, ValueError) as error:
        raise UserError(f'the network takes no image of {size[0]}×{size[1]} pixels (height × '
                        f'width) and {in_channels} channels: {str(error).splitlines()[0]}'
                        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    costs = [_cost(name, layer, watch.products[name]) for name, layer in layers.items()]
    return Complexity(
        tuple(size), [cost for cost in costs if cost.ops or cost.bytes],
        [f'{name or "the model itself"} ({type(layer).__name__})'
         for name, layer in layers.items() if name in watch.uncounted])


def _inference_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return by name the layers that a segmentor predicts with; of other modules, all."""
    parts = ('backbone', 'neck', 'decode_head')
    is_segmentor = all(hasattr(model, part) for part in ('backbone', 'decode_head'))
    return {name: layer for name, layer in model.named_modules()
            if name and (not is_segmentor or name.split('.')[0] in parts)}


def _cost(name: str, layer: nn.Module, products: int) -> LayerCost:
    cost = LayerCost(name, type(layer).__name__, flops=products)
    quantizer = getattr(layer, 'quantizer', None)
    uses_bits = isinstance(layer, BinaryLayer) and layer.binary and layer.binarize_weights
    if uses_bits:
        cost.flops, cost.bops = 0, products
    elif isinstance(layer, ShiftBranches):
        cost.flops = products * SHIFT_TAPS // STENCIL_TAPS
    elif isinstance(quantizer, tuple(ATTENTION_QUANTIZERS.values())):
        # Half of them are of queries with keys, half of values with a sum of boolean matrices.
        cost.flops, cost.bops = 0, products // 2 * (1 + quantizer.boolean_matrices)
    for parameter in layer.parameters(recurse=False):
        if uses_bits and parameter is layer.weight:
            cost.binary_parameters += parameter.numel()
            cost.bytes += len(parameter) * (WORD_BITS // 8) * -(-parameter[0].numel() // WORD_BITS)
        else:
            cost.float_parameters += parameter.numel()
            cost.bytes += FLOAT_BYTES * parameter.numel()
    return cost
