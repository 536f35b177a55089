"""Random weights that make a network behave like a trained one, in place of a checkpoint."""

from __future__ import annotations

import numpy as np
import torch
from mmseg.models import EncoderDecoder
from torch import nn

from bhvit_seg.models.decode_heads import BinaryConvModule
from bhvit_seg.models.embeddings import Downsampling
from bhvit_seg.models.layers import LayerScale
from bhvit_seg.models.token_mixers import MSGDC
from bhvit_seg.native.onnx_export import quiet
from bhvit_seg.native.onnx_network import Pixels

from .labels import center_classes

BRANCH = 0.1


@torch.no_grad()
def randomize(model: EncoderDecoder, images: list[np.ndarray], seed: int = 0) -> None:
    """Give a segmentor random parameters, and statistics and quantizers that fit the images.

    Binary products are scaled to be small beside their shortcuts. Otherwise a single bit that
    rounding flips would change most of the labels, and they could not be compared.

    Args:
        model: Changed in place; in evaluation mode afterwards.
        images: Two or more, ``(H, W, C)`` uint8, RGB, of one size.
        seed: The random seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with quiet():
            model.init_weights()
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.empty_like(parameter).uniform_(-0.1, 0.1))
        for module in model.modules():
            if isinstance(module, (MSGDC, BinaryConvModule)):
                module.norm.weight.mul_(BRANCH)
            elif isinstance(module, Downsampling) and module.act is not None:
                module.norm_out.weight.mul_(BRANCH)
            elif isinstance(module, LayerScale):
                module.scale.mul_(BRANCH)
        batch = Pixels(model)(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        model.train()
        for norm in norms:
            norm.momentum = 1.0
        model(batch, mode='tensor')
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
        model.eval()
        center_classes(model.decode_head.conv_seg, model(batch[:1], mode='tensor'))
