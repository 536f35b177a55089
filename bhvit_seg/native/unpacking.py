"""From a packed model back to a network of torch that labels as it does, for other runtimes.

The inverse of :mod:`~bhvit_seg.native.export`: what was folded into one number stays in one place,
scales and biases in the norms, and what it was folded from is 0 or 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
import numpy as np
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn

import bhvit_seg.models  # noqa: F401
from bhvit_seg.datasets.image_io import read_pixels
from bhvit_seg.datasets.lidar import append_lidar, read_lidar
from bhvit_seg.errors import UserError
from bhvit_seg.models.backbones.bhvit import Block
from bhvit_seg.models.fused import circular_stencil
from bhvit_seg.models.layers import BinaryLayer, RPReLU
from bhvit_seg.models.token_mixers import MSGDC, MSMHA

from .export import HEADS, TAPS, head_modules
from .file_format import read_packed, unpack_bits

NEEDED = ('classes', 'channels', 'color_type', 'lidar', 'window', 'ground_sampling_distance')


class Stencil(nn.Module):
    """Shift branches as one kernel ``(C, 1, 5, 5)``, with the weights of a packed file."""

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        self.kernel = nn.Parameter(kernel)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return circular_stencil(x, self.kernel, bias)


class _Part:
    """The tensors of a packed model whose names begin with ``prefix``."""

    def __init__(self, tensors: Mapping[str, np.ndarray], prefix: str = '') -> None:
        self.tensors, self.prefix = tensors, prefix

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.tensors[self.prefix + name].astype(np.float64))

    def of(self, name: str) -> _Part:
        return _Part(self.tensors, f'{self.prefix}{name}.')

    def bits(self, weight: Tensor, index: int | None = None) -> Tensor:
        """±1 in the shape of the latent weights of a layer, ``(out, ...)``."""
        words = self.tensors[self.prefix + 'bits']
        bits = torch.from_numpy(unpack_bits(words if index is None else words[index],
                                            weight[0].numel())).double()
        if weight.dim() == 4:
            bits = bits.view(len(weight), *weight.shape[2:], -1).permute(0, 3, 1, 2)
        return bits.reshape(weight.shape)


class UnpackedSegmentor:
    """What a packed file is as a segmentor of torch, and how its images are read.

    Attributes:
        model: In evaluation mode, float32.
        meta: See docs/packed.md.
    """

    def __init__(self, path: str | Path) -> None:
        tensors, self.meta = read_packed(path)
        missing = [key for key in NEEDED if key not in self.meta]
        if missing:
            raise UserError(f'the packed model {path} does not say what it labels '
                            f'({", ".join(missing)}): export it with `bhvit-seg export`')
        self.model = unpack_segmentor(tensors)
        self.reads_lidar = self.meta['lidar'] is not None

    def read(self, image: str | Path, lidar: str | Path | None = None) -> np.ndarray:
        """Return an image file in its own size, ``(H, W, C)``, red first."""
        pixels = read_pixels(str(image), self.meta['color_type'])[0]
        if self.reads_lidar:
            raster = read_lidar(str(lidar), **self.meta['lidar'])
            pixels = append_lidar(pixels, str(image), raster, str(lidar))
        return pixels


def unpack_segmentor(tensors: Mapping[str, np.ndarray]) -> nn.Module:
    """Return the segmentor whose folded tensors these are, in evaluation mode, float32."""
    part = _Part(tensors)
    model = _build(part).double()
    with torch.no_grad():
        _fill(model, part)
    return model.float().eval()


def _build(part: _Part) -> nn.Module:
    """Build the segmentor with norms that change nothing."""
    numbers = part.tensors['architecture'].tolist()
    arch = {key: numbers[1 + 4 * i:5 + 4 * i] for i, key in enumerate(
        ('depths', 'channels', 'mlp_channels', 'num_heads'))}
    window, binary, kind, channels, classes, align = numbers[17:23]
    divisor, = numbers[23:] or [1]  # older files have none
    norm_cfg = dict(type='BN', eps=0.)
    head = {index: each for each, index in HEADS.items()}[kind]
    pool = {} if 'head.pool_scales' not in part.tensors else dict(
        pool_scales=part.tensors['head.pool_scales'].tolist())
    init_default_scope('mmseg')
    return MODELS.build(dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='MultiChannelSegDataPreProcessor', mean=part['preprocess.mean'].tolist(),
            std=part['preprocess.std'].tolist(), bgr_to_rgb=numbers[0] >= 3,
            test_cfg=dict(size_divisor=divisor)),
        backbone=dict(
            type='BHViT', arch=arch, in_channels=numbers[0], window_size=window,
            downsampling='binary' if binary else 'full_precision', norm_cfg=norm_cfg,
            pretrain_img_size=4 * part.tensors['stem.position'].shape[1]),
        decode_head=dict(
            type=head.__name__, in_channels=arch['channels'], in_index=[0, 1, 2, 3],
            channels=channels, num_classes=classes, out_channels=classes, norm_cfg=norm_cfg,
            align_corners=bool(align), loss_decode=dict(type='CrossEntropyLoss'), **pool),
        test_cfg=dict(mode='whole')))


def _fill(model: nn.Module, part: _Part) -> None:
    backbone, head = model.backbone, model.decode_head
    for act in model.modules():
        if isinstance(act, RPReLU):
            act.shift_in.zero_()
            act.shift_out.zero_()
    stem = part.of('stem')
    backbone.patch_embed.projection.weight.copy_(stem['weight'].permute(0, 3, 1, 2))
    backbone.patch_embed.projection.bias.copy_(stem['bias'])
    backbone.patch_embed.position.weight.copy_(stem['position'][None])
    for i, down in enumerate(backbone.downsamplings):
        own = part.of(f'down{i}')
        _affine(down.norm_in, own, 'in_')
        down.position.weight.copy_(own['position'][None])
        if down.act is None:
            down.conv.weight.copy_(own['weight'].permute(0, 3, 1, 2))
            down.norm_out.bias.copy_(own['bias'])
        else:
            down.input_bias.copy_(own['input_bias'])
            _product(down.conv, down.norm_out, down.act, own)
    for s, stage in enumerate(backbone.stages):
        for b, block in enumerate(stage):
            _block(block, part.of(f'stage{s}.block{b}'))
    for i, norm in backbone.output_norms.items():
        _affine(norm, part.of(f'out{i}'))
    for name, module in head_modules(head).items():
        own = part.of(f'head.{name}')
        module.conv.input_bias.copy_(own['input_bias'])
        _product(module.conv, module.norm, module.act, own)
    head.conv_seg.weight.copy_(part['head.classifier.weight'][:, :, None, None])
    head.conv_seg.bias.copy_(part['head.classifier.bias'])


def _affine(norm: nn.Module, part: _Part, prefix: str = '') -> None:
    norm.weight.copy_(part[prefix + 'scale'])
    norm.bias.copy_(part[prefix + 'bias'])


def _product(layer: BinaryLayer, norm: nn.Module, act: RPReLU, part: _Part) -> None:
    layer.weight.copy_(part.bits(layer.weight))
    _affine(norm, part)
    act.slope.copy_(part['slope'])
    if part.prefix + 'shift' in part.tensors:
        act.shift_out.copy_(part['shift'])


def _block(block: Block, part: _Part) -> None:
    mixer, mlp = part.of('mixer'), part.of('mlp')
    _affine(block.norm1, mixer, 'in_')
    (_msgdc if isinstance(block.token_mixer, MSGDC) else _msmha)(block.token_mixer, mixer)
    _affine(block.norm2, mlp, 'in_')
    first, second = mlp.of('fc1'), mlp.of('fc2')
    block.mlp.fc1.input_bias.copy_(first['input_bias'])
    _product(block.mlp.fc1, block.mlp.norm1, block.mlp.act1, first)
    block.mlp.fc2.input_bias.copy_(-first['threshold'])
    _product(block.mlp.fc2, block.mlp.norm2, block.mlp.act2, second)
    # The packed stencil reads the map and has the shortcut in its centre.
    taps, scale = mlp['taps'], mlp['in_scale']
    taps[:, 0] -= 1
    taps = torch.where(scale[:, None] == 0, 0., taps / scale[:, None])
    kernel = taps.new_zeros(len(taps), 1, 5, 5)
    for k, (i, j) in enumerate(TAPS):
        kernel[:, 0, i, j] = taps[:, k]
    block.shifts = Stencil(kernel)
    block.mlp.layer_scale.scale.copy_(mlp['layer_scale'])
    block.mlp.layer_scale.bias.copy_(mlp['layer_bias'] - mlp['in_bias'] * taps.sum(1))


def _msgdc(mixer: MSGDC, part: _Part) -> None:
    mixer.input_bias.zero_()
    for i, (conv, act) in enumerate(zip(mixer.convs, mixer.acts)):
        scale = part['scale'][i].view(-1, 1, 1, 1)
        conv.weight.copy_(part.bits(conv.weight, i) * scale)
        conv.bias.copy_(part['bias'][i])
        act.slope.copy_(part['slope'][i])
    _affine(mixer.norm, part, 'out_')


def _msmha(mixer: MSMHA, part: _Part) -> None:
    mixer.pool_balance.copy_(part['pool_balance'])
    mixer.token_norm.weight.copy_(part['norm_weight'])
    mixer.token_norm.bias.copy_(part['norm_bias'])
    mixer.token_norm.eps = part['norm_eps'].item()
    for i, name in enumerate(('query', 'key', 'value', 'output')):
        projection, own = getattr(mixer, name), part.of(name)
        projection.linear.input_bias.copy_(own['input_bias'])
        _product(projection.linear, projection.norm, projection.act, own)
        if name != 'output':
            mixer.bit_bias[i] = own['bit_bias']
    alpha = part['alpha']
    mixer.quantizer.alpha.copy_(alpha)
    mixer.quantizer.zero_point.copy_(part['zero_point'])
    mixer.quantizer.initialized.fill_(1)
    scale = part['context_scale']
    mixer.context_norm.weight.copy_(scale / alpha.repeat_interleave(len(scale) // len(alpha)))
    mixer.context_norm.bias.copy_(part['context_bias'])
    mixer.context_act.slope.copy_(part['context_slope'])
    mixer.context_act.shift_out.copy_(part['context_shift'])
    mixer.window_balance.copy_(part['window_balance'])
    mixer.layer_scale.scale.copy_(part['output.layer_scale'])
    mixer.layer_scale.bias.copy_(part['output.layer_bias'])
