"""BHViT (Binarized Hybrid Vision Transformer, CVPR 2025, arXiv 2503.02394) as an mmseg backbone.

Four stages at strides 4, 8, 16 and 32: MSGDC blocks in the first two, MSMHA blocks in the last two,
a shift-enhanced binary MLP in each. Between blocks tokens are rows ``(B · H · W, C)``. Deliberate
differences from the released classifier: any height, width and number of channels; ``sign(0) =
+1``; the full-precision twin; options that leave out parts of the paper.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bhvit_seg.errors import UserError

from ..embeddings import Downsampling, PatchEmbedding
from ..layers import ADAPTIVE, build_token_norm, normalize
from ..mlp import BinaryMLP, ShiftBranches
from ..quantizers import ATTENTION_QUANTIZERS
from ..token_mixers import MSGDC, MSMHA
from ..tokens import MapShape, to_rows
from ..weights import load_backbone
from .common import Backbone, check_choice
from .published import adapt_state_dict, convert_checkpoint

__all__ = ['BHViT', 'convert_checkpoint']

ARCHITECTURES = {
    'tiny': dict(depths=(2, 2, 6, 2), channels=(64, 128, 256, 512),
                 mlp_channels=(512, 1024, 1024, 2048), num_heads=(1, 1, 4, 8)),
    'small': dict(depths=(3, 4, 8, 4), channels=(64, 128, 256, 512),
                  mlp_channels=(512, 1024, 1024, 2048), num_heads=(1, 1, 4, 8)),
    # Ours, not the paper's: half the channels of Tiny, MLPs that widen 4 times in all stages.
    'nano': dict(depths=(2, 2, 6, 2), channels=(32, 64, 128, 256),
                 mlp_channels=(128, 256, 512, 1024), num_heads=(1, 1, 2, 4)),
}
# The mixer of each stage.
TOKEN_MIXERS = {
    'hybrid': ('convolution', 'convolution', 'attention', 'attention'),
    'convolution': ('convolution',) * 4,
    'attention': ('attention',) * 4,
}
# Arguments of MSGDC.
CONVOLUTIONS = {'multi_scale': dict(groups=4, dilations=(1, 3, 5)),
                'plain': dict(groups=1, dilations=(1,))}


def _checked_arch(arch: str | dict) -> dict:
    if isinstance(arch, str):
        check_choice('BHViT', 'arch', arch, tuple(ARCHITECTURES))
        return ARCHITECTURES[arch]
    keys = tuple(ARCHITECTURES['tiny'])
    if {*arch} != {*keys} or any(len(values) != 4 for values in arch.values()):
        raise UserError(f'arch is {dict(arch)}; give {", ".join(keys)}, four numbers each, one '
                        f'for each stage, or one of {", ".join(ARCHITECTURES)}.')
    before = 1
    for i, (channels, hidden, heads) in enumerate(zip(*(arch[key] for key in keys[1:])), 1):
        if channels % 4 or channels % before or hidden % channels or channels % heads:
            raise UserError(
                f'stage {i} of arch has channels={channels}, mlp_channels={hidden}, '
                f'num_heads={heads}; channels must be a multiple of 4, of num_heads and of the '
                f'{before} before, and mlp_channels a multiple of channels.')
        before = channels
    return dict(arch)


class Block(nn.Module):
    """Token mixer and MLP with shortcuts, and shift branches; ``drop_path_rate`` is the MLP's."""

    def __init__(self, mixer: nn.Module, channels: int, mlp_channels: int, norm_cfg: dict,
                 rectify: bool, drop_path_rate: float, binary: bool, shifts: bool) -> None:
        super().__init__()
        self.norm1 = build_token_norm(norm_cfg, channels)
        self.token_mixer = mixer
        self.norm2 = build_token_norm(norm_cfg, channels)
        self.mlp = BinaryMLP(channels, mlp_channels, norm_cfg, rectify, binary)
        self.shifts = ShiftBranches(channels) if shifts else None
        self.drop_path_rate = drop_path_rate

    def forward(self, x: Tensor, shape: MapShape) -> Tensor:
        """Map rows ``(B · H · W, C)`` to the same shape."""
        mixed = self.token_mixer(normalize(self.norm1, x), shape)
        if isinstance(self.token_mixer, MSMHA):
            scale, bias = self.token_mixer.output_affine()
            x = torch.addcmul(x, mixed, scale) + bias
        else:
            x = x + mixed
        normed = normalize(self.norm2, x)
        out, (scale, bias) = self.mlp(normed), self.mlp.output_affine()
        if self.training and self.drop_path_rate:
            keep = torch.rand(shape.batch, 1, 1, device=x.device) >= self.drop_path_rate
            keep = keep.to(x.dtype) / (1 - self.drop_path_rate)
            branch = torch.addcmul(bias, out, scale).view(shape.batch, -1, x.shape[1]) * keep
            out, scale, bias = branch.view_as(x), torch.ones_like(scale), torch.zeros_like(bias)
        if self.shifts is None:
            return torch.addcmul(x + bias, out, scale)
        shifted = to_rows(self.shifts(shape.to_map(normed), bias))
        return shifted.addcmul_(out, scale).add_(x)


@contextlib.contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep running statistics unchanged while checkpointing recomputes a block."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(m.momentum, m.num_batches_tracked) for m in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before):
            norm.momentum, norm.num_batches_tracked = momentum, count


@MODELS.register_module()
class BHViT(Backbone):
    """Binarized Hybrid Vision Transformer.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'nano'`` (not of the paper), or a dict with ``depths``,
            ``channels``, ``mlp_channels`` and ``num_heads``, four numbers each.
        downsampling: ``'full_precision'`` (marked † in the paper) or ``'binary'``.
        norm_cfg: ``type`` ``'BN'`` (default), ``'SyncBN'`` or ``'LN'``.
        attention: Quantizer of attention matrices: ``'qd'`` (sum of three boolean matrices),
            ``'gsb'`` (the paper's older ablation) or ``'boolean'`` (one boolean matrix).
        rectify_weights: Use the gradient of ReCU for latent weights of linear layers.
        binary: ``False`` gives the full-precision twin, the paper's 32/32 row.
        in_channels: Channels of the image.
        window_size: Side of an attention window in tokens.
        out_indices: Stages to return.
        output_norm: Whether each returned map is normalised.
        drop_path_rate: Stochastic depth of the last block's MLP; the others increase to it
            linearly.
        frozen_stages: Stages, from the stem (0) on, that keep weights and statistics, with the
            norms of their outputs; -1: none.
        norm_eval: Whether BatchNorm keeps its statistics in training.
        with_cp: Recompute blocks in the backward pass to save memory.
        pretrain_img_size: Side in pixels of the images that position embeddings are learned on.
        token_mixers: ``'hybrid'`` (convolution, convolution, attention, attention), or
            ``'convolution'`` or ``'attention'`` in all stages.
        convolution: ``'multi_scale'`` (MSGDC), or ``'plain'``, one 3×3 convolution without groups
            or dilation.
        attention_span: ``'multi_scale'`` (MSMHA), ``'window'`` (no pooled tokens) or ``'global'``
            (all tokens of the map).
        shifts: Whether blocks have shift branches beside their MLP.
        adaptive: None, or what thresholds and scales of the binary convolutions follow: ``'image'``
            (BiDense) or ``'running'`` (running statistics).
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` loads a checkpoint of this backbone or
            of a segmentor that has it; stem weights and position embeddings are adapted in channels
            and size. A ``checkpoint`` of None loads none.

    Raises:
        UserError: An argument out of its range, an image smaller than a patch or of another channel
            count, a checkpoint that does not fit.
    """

    def __init__(self, arch: str | dict = 'small', downsampling: str = 'full_precision',
                 norm_cfg: dict | None = None, attention: str = 'qd', rectify_weights: bool = False,
                 binary: bool = True, in_channels: int = 3, window_size: int = 7,
                 out_indices: Sequence[int] = (0, 1, 2, 3), output_norm: bool = True,
                 drop_path_rate: float = 0.1, frozen_stages: int = -1, norm_eval: bool = False,
                 with_cp: bool = False, pretrain_img_size: int = 224, token_mixers: str = 'hybrid',
                 convolution: str = 'multi_scale', attention_span: str = 'multi_scale',
                 shifts: bool = True, adaptive: str | None = None,
                 init_cfg: dict | None = None) -> None:
        if init_cfg and init_cfg.get('type') == 'Pretrained' and not init_cfg.get('checkpoint'):
            init_cfg = None
        super().__init__(in_channels, out_indices, init_cfg)
        arch = _checked_arch(arch)
        for name, value, choices in (
                ('downsampling', downsampling, ('full_precision', 'binary')),
                ('attention', attention, tuple(ATTENTION_QUANTIZERS)),
                ('token_mixers', token_mixers, tuple(TOKEN_MIXERS)),
                ('convolution', convolution, tuple(CONVOLUTIONS)),
                ('attention_span', attention_span, ('multi_scale', 'window', 'global')),
                ('shifts', shifts, (True, False)), ('adaptive', adaptive, ADAPTIVE)):
            check_choice('BHViT', name, value, choices)
        self.arch, self.frozen_stages = arch, frozen_stages
        self.norm_eval, self.with_cp = norm_eval, with_cp
        norm_cfg = dict(norm_cfg or dict(type='BN'))
        depths, channels = arch['depths'], arch['channels']
        map_size = pretrain_img_size // 4
        self.patch_embed = PatchEmbedding(in_channels, channels[0], norm_cfg, map_size)
        self.downsamplings = nn.ModuleList(
            Downsampling(channels[i], channels[i + 1], norm_cfg, max(map_size >> (i + 1), 1),
                         downsampling, binary, adaptive) for i in range(3))
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device='cpu').tolist())

        def mixer(stage: int) -> nn.Module:
            if TOKEN_MIXERS[token_mixers][stage] == 'convolution':
                return MSGDC(channels[stage], norm_cfg, binary=binary, adaptive=adaptive,
                             **CONVOLUTIONS[convolution])
            return MSMHA(channels[stage], arch['num_heads'][stage], norm_cfg, window_size,
                         attention, rectify_weights, binary, attention_span)

        self.stages = nn.ModuleList(
            nn.ModuleList(
                Block(mixer(i), channels[i], arch['mlp_channels'][i], norm_cfg, rectify_weights,
                      next(rates), binary, shifts) for _ in range(depth))
            for i, depth in enumerate(depths))
        self.output_norms = nn.ModuleDict(
            {str(i): build_token_norm(norm_cfg, channels[i]) for i in self.out_indices}
            if output_norm else {})
        self._register_load_state_dict_pre_hook(
            lambda state, prefix, *_: adapt_state_dict(self, state, prefix))
        self.train()  # with what is frozen

    def init_weights(self) -> None:
        if not self.init_cfg or self.init_cfg.get('type') != 'Pretrained':
            super().init_weights()
        elif not self._is_init:
            load_backbone(
                self, self.init_cfg['checkpoint'],
                self.init_cfg.get('prefix', 'backbone').rstrip('.') + '.', lambda state: (
                    convert_checkpoint(state)
                    if any('patch_embeddings.proj' in name for name in state) else state),
                lambda state: adapt_state_dict(self, state))
            self._is_init = True

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map images ``(B, in_channels, H, W)``, at least 4×4 pixels, to a map ``(B, C, ⌈H/s⌉,
        ⌈W/s⌉)`` for each of ``out_indices``, with stride ``s`` = 4, 8, 16, 32."""
        self.check_image(image)
        rows, shape = self.patch_embed(image)
        outputs = []
        for i, stage in enumerate(self.stages):
            for block in stage:
                if self.with_cp and rows.requires_grad:
                    rows = checkpoint(
                        block, rows, shape, use_reentrant=False, context_fn=lambda block=block: (
                            contextlib.nullcontext(), _frozen_statistics(block)))
                else:
                    rows = block(rows, shape)
            if i in self.out_indices:
                norm = self.output_norms[str(i)] if self.output_norms else None
                outputs.append(shape.to_map(normalize(norm, rows) if norm else rows))
            if i < len(self.downsamplings):
                rows, shape = self.downsamplings[i](rows, shape)
        return tuple(outputs)

    def check_image(self, image: Tensor) -> None:
        super().check_image(image)
        if min(image.shape[2:]) < 4:
            raise UserError(
                f'the image is {image.shape[2]}×{image.shape[3]} pixels (height × width), '
                'smaller than one 4×4 patch; give a larger image.')

    def train(self, mode: bool = True) -> BHViT:
        """Set the mode; frozen stages and, with ``norm_eval``, BatchNorms stay in evaluation."""
        super().train(mode)
        if self.frozen_stages >= 0:
            for module in (self.patch_embed, *self.stages[:self.frozen_stages],
                           *self.downsamplings[:max(self.frozen_stages - 1, 0)],
                           *(norm for i, norm in self.output_norms.items()
                             if int(i) < self.frozen_stages)):
                module.eval().requires_grad_(False)
        for module in self.modules() if self.norm_eval else ():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self
