"""Folds a trained segmentor into the tensors of a packed model.

Everything between two signs is affine per channel, so norms, scaling factors, shifts, LayerScale
and biases reduce to a few numbers per channel; one function for each kind of module computes them
in float64. ``docs/packed.md`` has the formulas.
"""

import copy
from collections.abc import Iterator

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import numpy as np
import torch
from mmseg.models import EncoderDecoder
from torch import Tensor, nn

from bhvit_seg.errors import UserError
from bhvit_seg.models.backbones.bhvit import BHViT, Block
from bhvit_seg.models.decode_heads import BinaryConvModule, BinarySegformerHead, BinaryUPerHead
from bhvit_seg.models.embeddings import Downsampling, PatchEmbedding
from bhvit_seg.models.layers import BinaryConv2d, BinaryLayer, RPReLU
from bhvit_seg.models.mlp import BinaryMLP, ShiftBranches
from bhvit_seg.models.quantizers import AdaptiveBinarizer, AttentionQuantizer, sign
from bhvit_seg.models.segmentors import DistillationSegmentor
from bhvit_seg.models.token_mixers import MSGDC, MSMHA

from .file_format import WORD_BITS, pack_bits
from .packed_meta import count_channels

Tensors = dict[str, np.ndarray]

MAX_CLASSES = 256
HEADS = {BinarySegformerHead: 0, BinaryUPerHead: 1}
# Offsets of the nine taps of the shift branches in their 5×5 kernel: the centre, then up, down,
# two up, two down, and the same to the left and right.
TAPS = ((2, 2), (1, 2), (3, 2), (0, 2), (4, 2), (2, 1), (2, 3), (2, 0), (2, 4))


@torch.no_grad()
def fold_segmentor(model: EncoderDecoder) -> Tensors:
    """Return the packed model's tensors (reals in float64); a UserError if it cannot be packed."""
    check_exportable(model)
    model = copy.deepcopy(model).cpu().double()
    fold_adaptive(model)
    backbone, head = model.backbone, model.decode_head
    preprocessing, order = read_preprocessing(model)
    divisor = getattr(model.data_preprocessor, 'divisor', 1)
    tensors = {'architecture': _architecture(backbone, head, divisor),
               **_named('preprocess', preprocessing),
               **_named('stem', _stem(backbone.patch_embed, order))}
    for i, downsampling in enumerate(backbone.downsamplings):
        tensors.update(_named(f'down{i}', _downsampling(downsampling)))
    for s, stage in enumerate(backbone.stages):
        for b, block in enumerate(stage):
            tensors.update(_named(f'stage{s}.block{b}', _block(block)))
    for i, channels in enumerate(backbone.arch['channels']):
        norm = backbone.output_norms[str(i)] if backbone.output_norms else None
        scale, bias = _affine(norm) if norm else (np.ones(channels), np.zeros(channels))
        tensors.update(_named(f'out{i}', {'scale': scale, 'bias': bias}))
    tensors.update(_named('head', _head(head)))
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise UserError(f'the folded model has a value in {name} that is not finite: the '
                            'checkpoint holds NaN or infinity, train again from an earlier one')
    return tensors


def uninitialized_quantizers(model: nn.Module) -> int:
    """Count attention quantizers that no training step has initialised."""
    return sum(isinstance(m, AttentionQuantizer) and not m.initialized for m in model.modules())


@torch.no_grad()
def fold_adaptive(model: nn.Module) -> None:
    """Fold the constants of ``adaptive='running'`` into the biases and weights of convolutions."""
    for module in list(model.modules()):
        adaptive = getattr(module, 'adaptive', None)
        if adaptive is not None and adaptive.statistics is not None:
            bias, scale = adaptive.constants(module.input_bias)
            module.input_bias.copy_(bias)
            for conv in module.modules():
                if isinstance(conv, BinaryConv2d):
                    conv.weight.mul_(scale)  # and with it the mean of its magnitude
            module.adaptive = None


def _named(prefix: str, tensors: Tensors) -> Tensors:
    return {f'{prefix}.{name}': array for name, array in tensors.items()}


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


# ---------------------------------------------------------------------------- what is refused


def check_exportable(model: nn.Module) -> None:
    """Raise a UserError if the packed format cannot represent a model."""
    for obstacle, possible in _obstacles(model):
        raise UserError(f'{obstacle}: only {possible} can be packed')


def _obstacles(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield what prevents packing, and what can be packed."""
    # A subclass may compute something else: the classes have to be exactly these.
    neck = ' with a neck' if getattr(model, 'with_neck', False) else ''
    if type(model) not in (EncoderDecoder, DistillationSegmentor) or neck:
        yield (f'the segmentor is a {type(model).__name__}{neck}',
               'an EncoderDecoder of BHViT and a binary head')
    backbone, head = model.backbone, model.decode_head
    if type(backbone) is not BHViT:
        yield f'the backbone is a {type(backbone).__name__}', 'BHViT'
    if type(head) not in HEADS:
        yield (f'the decode head is a {type(head).__name__}',
               ' and '.join(kind.__name__ for kind in HEADS))
    for layer in (*backbone.modules(), *head.modules()):
        if isinstance(layer, BinaryLayer) and not layer.binary:
            yield 'the model is the full-precision twin (binary=False)', 'the binary network'
        if isinstance(layer, AdaptiveBinarizer) and layer.statistics is None:
            yield ("thresholds and scales of convolutions depend on the image (adaptive='image')",
                   "constants (adaptive=None or 'running')")
    stages = tuple(range(len(backbone.stages)))
    for i in stages:
        yield from _obstacles_in_stage(backbone, i)
    if tuple(head.in_index) != stages or backbone.out_indices != stages:
        yield (f'the head takes the maps {tuple(head.in_index)} of the backbone\'s '
               f'{backbone.out_indices}', 'all four stages in order')
    if getattr(head, 'interpolate_mode', 'bilinear') != 'bilinear':
        yield (f'the head upsamples maps with interpolate_mode={head.interpolate_mode!r}',
               "'bilinear'")
    if head.out_channels == 1:
        yield ('the head has one output channel and a threshold (out_channels=1)',
               'one channel for each class')
    if head.out_channels > MAX_CLASSES:
        yield (f'the head has {head.out_channels} classes and labels are 8-bit',
               f'at most {MAX_CLASSES} classes')
    if head.channels % WORD_BITS:
        yield f'the decode head has {head.channels} channels', f'multiples of {WORD_BITS}'
    padding = getattr(model.data_preprocessor, 'test_cfg', None)
    if padding:
        yield (f'data_preprocessor.test_cfg is {padding}, by which mmseg fills images up with one '
               'value', "MultiChannelSegDataPreProcessor's dict(size_divisor=...)")


def _obstacles_in_stage(backbone: BHViT, i: int) -> Iterator[tuple[str, str]]:
    """Yield the same for a stage, which has to be the whole hybrid in multiples of words."""
    stage = f'stage {i + 1} of the backbone'
    for block in backbone.stages[i]:
        mixer = block.token_mixer
        if type(mixer) is not (MSGDC if i < 2 else MSMHA):
            yield f'{stage} mixes tokens by {type(mixer).__name__}', "token_mixers='hybrid'"
        if i < 2 and [conv.dilation[0] for conv in mixer.convs] != [1, 3, 5]:
            yield f'{stage} has an ordinary convolution', "convolution='multi_scale'"
        if i >= 2 and mixer.span != 'multi_scale':
            yield f'{stage} has attention_span={mixer.span!r}', "'multi_scale'"
        if i >= 2 and not isinstance(mixer.quantizer, AttentionQuantizer):
            yield f'{stage} quantizes by {type(mixer.quantizer).__name__}', "attention='qd'"
        if block.shifts is None:
            yield f'{stage} has no shift branches (shifts=False)', 'a backbone with them'
    width, heads = backbone.arch['channels'][i], backbone.arch['num_heads'][i]
    if width % WORD_BITS:
        yield f'{stage} has {width} channels', f'multiples of {WORD_BITS}'
    if i < 2 and width // 4 not in (8, 16) and width // 4 % WORD_BITS:
        yield (f'{stage} has {width} channels, {width // 4} in each group',
               f'groups of 8, 16 or a multiple of {WORD_BITS} channels')
    if i >= 2 and width // heads % WORD_BITS:
        yield f'{stage} has {width // heads} channels a head', f'multiples of {WORD_BITS}'


# ------------------------------------------------------------------------------- the pieces


def _affine(norm: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Scale and bias ``(C,)`` of a norm that uses running statistics."""
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or not norm.track_running_stats:
        raise UserError(f'the model has a {type(norm).__name__} whose statistics depend on the '
                        "image: only norm_cfg=dict(type='BN') or 'SyncBN' can be packed")
    weight, bias = (_numpy(norm.weight), _numpy(norm.bias)) if norm.affine else (1, 0)
    scale = 1 / np.sqrt(_numpy(norm.running_var) + norm.eps) * weight
    return scale, bias - _numpy(norm.running_mean) * scale


def _weight(layer: BinaryLayer) -> tuple[np.ndarray, np.ndarray]:
    """Bits ``(outputs, words)``, inputs in the order (ky, kx, channel), and scaling factors."""
    weight = layer.weight.detach()
    flat = weight.flatten(1)
    positive = sign(flat, flat.mean(1, keepdim=True)).view_as(weight) > 0
    if positive.dim() == 4:
        positive = positive.permute(0, 2, 3, 1)
    return pack_bits(positive.flatten(1).numpy()), _numpy(flat.abs().mean(1))


def _act(act: RPReLU, channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return shift in, slope and shift out, ``(C,)`` each."""
    shift_in, slope, shift_out = (
        np.broadcast_to(_numpy(p), (channels,)) for p in (act.shift_in, act.slope, act.shift_out))
    return shift_in, slope, shift_out


def _product(layer: BinaryLayer, norm: nn.Module, act: RPReLU) -> Tensors:
    """``prelu(scale · dot + bias + shortcut, slope)``: the product, its norm and its RPReLU."""
    bits, factor = _weight(layer)
    scale, bias = _affine(norm)
    shift_in, slope, _ = _act(act, len(scale))
    return {'bits': bits, 'scale': factor * scale, 'bias': bias - shift_in, 'slope': slope}


# ------------------------------------------------------------------------- input and backbone


def _architecture(backbone: BHViT, head: nn.Module, divisor: int) -> np.ndarray:
    arch = backbone.arch
    window_size, = {m.window_size for m in backbone.modules() if isinstance(m, MSMHA)}
    binary_downsampling = backbone.downsamplings[0].act is not None
    return np.array([
        backbone.in_channels, *arch['depths'], *arch['channels'], *arch['mlp_channels'],
        *arch['num_heads'], window_size, int(binary_downsampling), HEADS[type(head)],
        head.channels, head.out_channels, int(head.align_corners), divisor], np.int32)


def read_preprocessing(model: EncoderDecoder) -> tuple[Tensors, list[int]]:
    """Return mean and deviation of each channel, red first, and the model's channel order, which is
    applied to the first layer; a trial of the preprocessor shows it."""
    preprocessor, channels = model.data_preprocessor, count_channels(model)
    mean, std = torch.zeros(channels).double(), torch.ones(channels).double()
    if getattr(preprocessor, '_enable_normalize', False):
        mean, std = (values.flatten().double() for values in (preprocessor.mean, preprocessor.std))
        if len(mean) not in (1, channels):
            raise UserError(f'data_preprocessor has the mean of {len(mean)} channels and the '
                            f'backbone {channels} in_channels: give one for each')
        mean, std = mean.expand(channels), std.expand(channels)
    exchanged = [2, 1, 0, *range(3, channels)] if channels >= 3 else list(range(channels))
    image = torch.arange(channels * 16).view(channels, 4, 4).byte()
    output = preprocessor({'inputs': [image]})['inputs'][0][:, :4, :4]
    for read, order in ((exchanged, list(range(channels))), (list(range(channels)), exchanged)):
        normalised = (image[read] - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
        if normalised.shape == output.shape and torch.allclose(output.double(), normalised):
            return {'mean': _numpy(mean)[order], 'std': _numpy(std)[order]}, order
    raise UserError(f'the data_preprocessor {type(preprocessor).__name__} does more than to '
                    'normalise channels and exchange red and blue: only that can be packed')


def _stem(stem: PatchEmbedding, order: list[int]) -> Tensors:
    scale, bias = _affine(stem.norm)
    weight = _numpy(stem.projection.weight)[:, order].transpose(0, 2, 3, 1)
    if stem.projection.bias is not None:
        bias = bias + scale * _numpy(stem.projection.bias)
    return {'weight': weight * scale[:, None, None, None], 'bias': bias,
            'position': _numpy(stem.position.weight)[0]}


def _downsampling(downsampling: Downsampling) -> Tensors:
    conv, act = downsampling.conv, downsampling.act
    in_scale, in_bias = _affine(downsampling.norm_in)
    tensors = {'in_scale': in_scale, 'in_bias': in_bias,
               'position': _numpy(downsampling.position.weight)[0]}
    if act is None:
        scale, bias = _affine(downsampling.norm_out)
        weight = _numpy(conv.weight).transpose(0, 2, 3, 1)
        return {**tensors, 'weight': weight * scale[:, None, None, None], 'bias': bias}
    return {**tensors, 'input_bias': _numpy(downsampling.input_bias),
            **_product(conv, downsampling.norm_out, act),
            'shift': _act(act, conv.out_channels)[2]}


def _block(block: Block) -> Tensors:
    fold = _msgdc if isinstance(block.token_mixer, MSGDC) else _msmha
    return {**_named('mixer', fold(block.token_mixer, block.norm1)),
            **_named('mlp', _mlp(block.mlp, block.shifts, block.norm2))}


def _msgdc(mixer: MSGDC, norm: nn.Module) -> Tensors:
    in_scale, in_bias = _affine(norm)
    out_scale, out_bias = _affine(mixer.norm)
    branches = []
    for conv, act in zip(mixer.convs, mixer.acts):
        bits, scale = _weight(conv)
        shift_in, slope, shift_out = _act(act, len(scale))
        bias = _numpy(conv.bias) - shift_in
        branches.append({'bits': bits, 'scale': scale, 'bias': bias, 'slope': slope})
        out_bias = out_bias + out_scale * shift_out
    return {'in_scale': in_scale, 'in_bias': in_bias + _numpy(mixer.input_bias),
            **{name: np.stack([branch[name] for branch in branches]) for name in branches[0]},
            'out_scale': out_scale, 'out_bias': out_bias}


def _msmha(mixer: MSMHA, norm: nn.Module) -> Tensors:
    in_scale, in_bias = _affine(norm)
    tensors = {'in_scale': in_scale, 'in_bias': in_bias,
               'pool_balance': _numpy(mixer.pool_balance),
               'norm_weight': _numpy(mixer.token_norm.weight),
               'norm_bias': _numpy(mixer.token_norm.bias),
               'norm_eps': np.array([mixer.token_norm.eps])}
    channels = len(in_scale)
    scale, bias = _affine(mixer.context_norm)
    for index, name in enumerate(('query', 'key', 'value')):
        projection = getattr(mixer, name)
        shift_out = _act(projection.act, channels)[2]
        tensors.update(_named(name, {
            'input_bias': _numpy(projection.linear.input_bias),
            **_product(projection.linear, projection.norm, projection.act),
            'bit_bias': shift_out + _numpy(mixer.bit_bias[index])}))
        bias = bias + shift_out
    alpha = _numpy(mixer.quantizer.alpha)
    shift_in, slope, shift_out = _act(mixer.context_act, channels)
    layer_scale, layer_bias = (_numpy(t) for t in mixer.output_affine())
    return {**tensors, 'alpha': alpha, 'zero_point': _numpy(mixer.quantizer.zero_point),
            'context_scale': scale * np.repeat(alpha, channels // len(alpha)),
            'context_bias': bias - shift_in, 'context_slope': slope,
            'window_balance': _numpy(mixer.window_balance), 'context_shift': shift_out,
            **_named('output', {
                'input_bias': _numpy(mixer.output.linear.input_bias),
                **_product(mixer.output.linear, mixer.output.norm, mixer.output.act),
                'layer_scale': layer_scale, 'layer_bias': layer_bias})}


def _mlp(mlp: BinaryMLP, shifts: ShiftBranches, norm: nn.Module) -> Tensors:
    in_scale, in_bias = _affine(norm)
    hidden, channels = mlp.fc1.out_features, mlp.fc1.in_features
    hidden_shift = _act(mlp.act1, hidden)[2]
    second = _product(mlp.fc2, mlp.norm2, mlp.act2)
    # the first layer's output shift reaches the pooled shortcut as a constant per channel
    second['bias'] = second['bias'] + hidden_shift.reshape(channels, -1).mean(1)
    kernel = _numpy(((shifts.scale / shifts.divisors)[:, :, None, None] * shifts.taps).sum(0))
    taps = np.stack([kernel[:, i, j] for i, j in TAPS], 1)
    layer_scale, layer_bias = (_numpy(t) for t in mlp.output_affine())
    layer_bias = layer_bias + _numpy(shifts.bias.sum(0)) + in_bias * taps.sum(1)
    # the branches read the normalised map, the packed stencil reads the map itself
    taps = taps * in_scale[:, None]
    taps[:, 0] += 1
    return {'in_scale': in_scale, 'in_bias': in_bias,
            **_named('fc1', {
                'input_bias': _numpy(mlp.fc1.input_bias),
                **_product(mlp.fc1, mlp.norm1, mlp.act1),
                'threshold': -(hidden_shift + _numpy(mlp.fc2.input_bias))}),
            **_named('fc2', second),
            'taps': taps, 'layer_scale': layer_scale, 'layer_bias': layer_bias}


# ------------------------------------------------------------------------------------- heads


def head_modules(head: nn.Module) -> dict[str, nn.Module]:
    """Return the convolutions of a head by their names in a packed file."""
    if isinstance(head, BinarySegformerHead):
        return {**{f'conv{i}': conv for i, conv in enumerate(head.convs)},
                'fusion': head.fusion_conv}
    return {**{f'psp{k}': branch[1] for k, branch in enumerate(head.psp_modules)},
            'bottleneck': head.bottleneck,
            **{f'lateral{i}': conv for i, conv in enumerate(head.lateral_convs)},
            **{f'fpn{i}': conv for i, conv in enumerate(head.fpn_convs)},
            'fpn_bottleneck': head.fpn_bottleneck}


def _head(head: nn.Module) -> Tensors:
    tensors = {}
    if isinstance(head, BinaryUPerHead):
        tensors['pool_scales'] = np.array(head.psp_modules.pool_scales, np.int32)
    for name, module in head_modules(head).items():
        assert isinstance(module, BinaryConvModule)
        tensors.update(_named(name, {
            'input_bias': _numpy(module.conv.input_bias),
            **_product(module.conv, module.norm, module.act),
            'shift': _act(module.act, module.conv.out_channels)[2]}))
    return {**tensors, 'classifier.weight': _numpy(head.conv_seg.weight)[:, :, 0, 0],
            'classifier.bias': _numpy(head.conv_seg.bias)}
