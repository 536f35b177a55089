"""What a network costs: multiply-accumulates in real values and in bits, parameters, bytes.

The convention of the field (Bi-Real Net, ReActNet, BHViT): FLOPs are multiply-accumulates of
products in real values, BOPs those of ±1 (or boolean) values with ±1, and OPs = FLOPs + BOPs / 64.
Products are those of convolutions, linear layers and attention. What is done once for an element,
such as norms, activations, shortcuts, softmax, pooling and resizing, is not counted. A tap in the
padding counts as any other.

Counting goes by the type of layer: :data:`COUNTERS` has a formula for each type that multiplies,
:data:`ELEMENTWISE` names those that have parameters but no products. A layer of a type that neither
knows is reported by name, as is a module that was seen to multiply: nothing is silently 0. A
subclass is known only if it inherits ``forward``, for else it may compute something else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import torch
from mmcv.cnn import bricks
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bhvit_seg.errors import UserError
from bhvit_seg.models.backbones.binary_vit import BinaryViTBlock
from bhvit_seg.models.embeddings import Downsampling, PositionEmbedding
from bhvit_seg.models.layers import BinaryConv2d, BinaryLinear, LayerScale, RPReLU
from bhvit_seg.models.mlp import BinaryMLP, ShiftBranches
from bhvit_seg.models.quantizers import ATTENTION_QUANTIZERS
from bhvit_seg.models.token_mixers import MSGDC, MSMHA
from bhvit_seg.models.tokens import tile

BITS_OF_AN_OP = 64
FLOAT_BYTES = 4
# Packed weights of an output fill whole words.
WORD_BITS = 32
# Offsets of the shift branches in a map: itself, and two in each of four directions.
SHIFT_TAPS = 9


class Products(NamedTuple):
    """Multiply-accumulates of a layer.

    Attributes:
        flops: In real values.
        bops: Of bits with bits.
    """

    flops: int = 0
    bops: int = 0


@dataclass
class LayerCost:
    """Cost of one layer, without that of layers inside it.

    Attributes:
        name: Its name in the model.
        kind: Its type.
        flops, bops: Multiply-accumulates in real values, and of bits.
        binary_parameters: Parameters of which one bit each is used.
        float_parameters: All others.
        bytes: Four for each float parameter, and rows of 32-bit words for the bits of each output.
    """

    name: str
    kind: str
    flops: int = 0
    bops: int = 0
    binary_parameters: int = 0
    float_parameters: int = 0
    bytes: int = 0

    @property
    def ops(self) -> float:
        """FLOPs + BOPs / 64."""
        return self.flops + self.bops / BITS_OF_AN_OP


@dataclass
class Complexity:
    """Cost of a network for one image.

    Attributes:
        size: Height and width of the image in pixels.
        layers: Every layer that multiplies or has parameters, in the order of the model.
        unknown: ``name (type)`` of each layer that could not be counted; the totals lack it.
    """

    size: tuple[int, int]
    layers: list[LayerCost] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def total(self) -> LayerCost:
        """The sum of all layers."""
        names = ('flops', 'bops', 'binary_parameters', 'float_parameters', 'bytes')
        return LayerCost('total', '', **{
            name: sum(getattr(layer, name) for layer in self.layers) for name in names})

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""

        def row(layer: LayerCost) -> dict[str, Any]:
            return {**vars(layer), 'ops': layer.ops}

        return {'size': list(self.size), 'total': row(self.total), 'unknown': self.unknown,
                'layers': [row(layer) for layer in self.layers]}


Counts = Iterator[tuple[nn.Module, Products]]
# (layer, its arguments, its result) -> products of the layer, or of layers inside it whose
# `forward` is not called.
Counter = Callable[[nn.Module, Sequence[Any], Any], Counts]


def _uses_bits(layer: nn.Module) -> bool:
    return isinstance(layer, (BinaryConv2d, BinaryLinear)) and (
        layer.binary and layer.binarize_weights)


def _products(macs: int, binary: bool) -> Products:
    return Products(bops=macs) if binary else Products(flops=macs)


def _convolution(layer: nn.Module, args: Sequence[Any], out: Tensor) -> Counts:
    yield layer, _products(out.numel() * layer.weight[0].numel(), _uses_bits(layer))


def _transposed_convolution(layer: nn.Module, args: Sequence[Any], out: Tensor) -> Counts:
    yield layer, Products(args[0].numel() * layer.weight[0].numel())


def _linear(layer: nn.Module, args: Sequence[Any], out: Tensor) -> Counts:
    yield layer, _products(out.numel() * layer.in_features, _uses_bits(layer))


def _torch_attention(layer: nn.MultiheadAttention, args: Sequence[Any], out: Any) -> Counts:
    query, key, value = args[:3]
    width = layer.embed_dim
    rows = query.numel() // query.shape[-1]
    batch = query.shape[0 if layer.batch_first else 1] if query.dim() == 3 else 1
    keys = key.numel() // key.shape[-1]
    projections = width * (query.numel() + key.numel() + value.numel())
    yield layer, Products(projections + 2 * rows * (keys // batch) * width)
    yield layer.out_proj, Products(rows * width * width)


def _attention(layer: MSMHA | BinaryViTBlock, sets: Sequence[tuple[int, int]],
               channels: int) -> Products:
    """Products of attention inside sets of tokens: queries with keys, weights with values."""
    macs = channels * sum(count * tokens**2 for count, tokens in sets)
    if not layer.binary:
        return Products(flops=2 * macs)
    return Products(bops=macs * (1 + layer.quantizer.boolean_matrices))


def _windows(layer: MSMHA, args: Sequence[Any], out: Tensor) -> Counts:
    rows, shape = args
    side = max(shape[1:]) if layer.span == 'global' else layer.window_size
    parts = [part for row in tile(*shape[1:], side) for part in row]
    pooled = sum(part.count for part in parts) if layer.span == 'multi_scale' else 0
    sets = [(shape.batch * part.count, part.tokens + pooled) for part in parts]
    yield layer, _attention(layer, sets, rows.shape[1])


def _whole_map(layer: BinaryViTBlock, args: Sequence[Any], out: Tensor) -> Counts:
    rows, shape = args
    yield layer, _attention(layer, [(shape.batch, shape.height * shape.width)], rows.shape[1])


def _dilated_convolutions(layer: MSGDC, args: Sequence[Any], out: Tensor) -> Counts:
    for conv in layer.convs:
        yield conv, _products(len(out) * conv.weight.numel(), _uses_bits(conv))


def _second_product(layer: BinaryMLP, args: Sequence[Any], out: Tensor) -> Counts:
    yield layer.fc2, _products(len(out) * layer.fc2.weight.numel(), _uses_bits(layer.fc2))


def _shifts(layer: ShiftBranches, args: Sequence[Any], out: Tensor) -> Counts:
    yield layer, Products(SHIFT_TAPS * out.numel())


COUNTERS: dict[type, Counter] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d, bricks.Conv2d, bricks.Conv3d,
                     bricks.Conv2dAdaptivePadding, BinaryConv2d), _convolution),
    **dict.fromkeys((nn.ConvTranspose2d, bricks.ConvTranspose2d), _transposed_convolution),
    **dict.fromkeys((nn.Linear, bricks.Linear, BinaryLinear), _linear),
    nn.MultiheadAttention: _torch_attention,
    MSGDC: _dilated_convolutions,
    MSMHA: _windows,
    BinaryMLP: _second_product,
    ShiftBranches: _shifts,
    BinaryViTBlock: _whole_map,
}
ELEMENTWISE: set[type] = {
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.LayerNorm, nn.GroupNorm,
    nn.InstanceNorm2d, nn.PReLU, bricks.Scale, bricks.LayerScale, RPReLU, LayerScale,
    PositionEmbedding, Downsampling, *ATTENTION_QUANTIZERS.values(),
}


def _known_as(layer: nn.Module) -> type | None:
    """The nearest base in our tables, if ``layer`` computes as that does."""
    for base in type(layer).__mro__:
        if base in COUNTERS or base in ELEMENTWISE:
            return base if type(layer).forward is base.forward else None
    return None


# Products that torch's own counter of operations leaves out.
OTHER_PRODUCTS = {getattr(torch.ops.aten, name) for name in (
    'mv', 'addmv', 'dot', 'vdot', 'linalg_vecdot', 'addr', '_cdist_forward',
    '_euclidean_dist', '_trilinear')}


class _Watch(TorchDispatchMode):
    """Records in which module's ``forward`` each product is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[str] = []
        self.multiplied: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._overloadpacket in flop_registry or func._overloadpacket in OTHER_PRODUCTS:
            self.multiplied.add(self.running[-1])
        return func(*args, **(kwargs or {}))


def inference_parts(model: nn.Module) -> dict[str, nn.Module]:
    """Return what a segmentor needs to predict, by name; of any other module, all of it.

    Auxiliary heads serve training alone.
    """
    names = ('backbone', 'neck', 'decode_head')
    parts = {name: getattr(model, name, None) for name in names}
    parts = {name: part for name, part in parts.items() if part is not None}
    return parts if {'backbone', 'decode_head'} <= set(parts) else {'': model}


@torch.no_grad()
def count_complexity(model: nn.Module, size: tuple[int, int], in_channels: int = 3) -> Complexity:
    """Count what a network costs for one image.

    The network runs on tensors that have shapes and no values, so that an image of any size takes
    next to no memory. The model itself is left as it is.

    Args:
        model: A segmentor of mmseg, or a module that takes images ``(B, C, H, W)``.
        size: Height and width of the image in pixels.
        in_channels: Channels of the image.

    Raises:
        UserError: The network takes no image of this size.
    """
    model = copy.deepcopy(model).cpu().eval()
    parts = inference_parts(model)
    named = {f'{start}{"." if start and name else ""}{name}': layer
             for start, part in parts.items() for name, layer in part.named_modules()}
    names = {layer: name for name, layer in named.items()}
    costs = {name: _parameters(name, layer) for name, layer in named.items()}
    watch = _Watch()
    watch.running.append('')

    def enter(layer: nn.Module, args: Sequence[Any]) -> None:
        watch.running.append(names[layer])

    def leave(layer: nn.Module, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> None:
        watch.running.pop()
        counter = COUNTERS.get(_known_as(layer))
        for counted, products in counter(layer, _positional(layer, args, kwargs), out) \
                if counter else ():
            cost = costs[names[counted]]
            cost.flops += products.flops
            cost.bops += products.bops

    for layer in named.values():
        layer.register_forward_pre_hook(enter)
        layer.register_forward_hook(leave, with_kwargs=True)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), watch:
            model(torch.empty(1, in_channels, *size))
    except (RuntimeError, ValueError) as error:
        raise UserError(f'the network takes no image of {size[0]}×{size[1]} pixels (height × '
                        f'width) and {in_channels} channels: {str(error).splitlines()[0]}'
                        ) from error
    unknown = [
        name for name, layer in named.items()
        if _known_as(layer) not in COUNTERS and (
            name in watch.multiplied
            or _known_as(layer) is None and any(True for _ in layer.parameters(recurse=False)))]
    if '' in watch.multiplied and '' not in named:
        unknown.append('')
    return Complexity(
        tuple(size), [cost for cost in costs.values() if cost.ops or cost.bytes],
        [f'{name or "the model itself"} ({type(named.get(name, model)).__name__})'
         for name in unknown])


def _positional(layer: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """Arguments in the order of torch's attention, which is called by keyword as well."""
    if isinstance(layer, nn.MultiheadAttention):
        order = ('query', 'key', 'value')
        return [*args, *(kwargs[name] for name in order[len(args):])]
    return [*args, *kwargs.values()]


def _parameters(name: str, layer: nn.Module) -> LayerCost:
    cost = LayerCost(name, type(layer).__name__)
    for parameter in layer.parameters(recurse=False):
        if _uses_bits(layer) and parameter is layer.weight:
            cost.binary_parameters += parameter.numel()
            cost.bytes += len(parameter) * (WORD_BITS // 8) * -(-parameter[0].numel() // WORD_BITS)
        else:
            cost.float_parameters += parameter.numel()
            cost.bytes += FLOAT_BYTES * parameter.numel()
    return cost
