"""Small segmentors with nothing left at its initial value, for tests of packed models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn

import bhvit_seg.models  # noqa: F401
from bhvit_seg.datasets.synthetic import generate_scene
from bhvit_seg.models.layers import RPReLU
from bhvit_seg.models.quantizers import AttentionQuantizer

MINI = dict(depths=(1, 1, 2, 1), channels=(32, 64, 128, 256), mlp_channels=(128, 256, 256, 512),
            num_heads=(1, 1, 2, 4))
WIDE = dict(depths=(1, 1, 1, 1), channels=(64, 128, 256, 512), mlp_channels=(256, 256, 512, 1024),
            num_heads=(1, 1, 4, 8))


def segmentor_config(arch: dict = MINI, in_channels: int = 3, classes: int = 5,
                     head: str = 'BinarySegformerHead', head_channels: int = 64,
                     align_corners: bool = False, backbone: dict | None = None,
                     head_options: dict | None = None, preprocessor: dict | None = None,
                     **options) -> dict:
    """Return the config of a segmentor; ``backbone`` and so on override its parts' arguments."""
    numbers = torch.arange(in_channels, dtype=torch.float64)
    return dict(
        type='EncoderDecoder',
        data_preprocessor={**dict(
            type='MultiChannelSegDataPreProcessor', mean=(110. + 7 * numbers).tolist(),
            std=(50. + 3 * numbers).tolist(), bgr_to_rgb=in_channels >= 3),
            **(preprocessor or {})},
        backbone={**dict(type='BHViT', arch=arch, in_channels=in_channels, pretrain_img_size=64),
                  **(backbone or {})},
        decode_head={**dict(
            type=head, in_channels=list(arch['channels']), in_index=[0, 1, 2, 3],
            channels=head_channels, num_classes=classes, align_corners=align_corners,
            loss_decode=dict(type='CrossEntropyLoss')), **(head_options or {})},
        test_cfg=dict(mode='whole'), **options)


def build_segmentor(*args, seed: int = 0, **kwargs) -> nn.Module:
    """Build the segmentor of :func:`segmentor_config` with random parameters and statistics."""
    init_default_scope('mmseg')
    torch.manual_seed(seed)
    model = MODELS.build(segmentor_config(*args, **kwargs)).eval()
    randomize(model, seed)
    return model


def write_experiment(folder: Path, pipeline: Sequence[dict] = (), **options) -> tuple[Path, Path]:
    """Write config and checkpoint of a random segmentor; ``pipeline`` stands behind the loading.

    Returns:
        The config and the checkpoint.
    """
    config, checkpoint = folder / 'random.py', folder / 'random.pth'
    pipeline = [dict(type='LoadAerialImage'), *pipeline, dict(type='PackSegInputs')]
    config.write_text(
        "custom_imports = dict(imports=['bhvit_seg.modules'])\n"
        "default_scope = 'mmseg'\ncrop_size = (64, 48)\n"
        f'model = {segmentor_config(**options)!r}\ntest_pipeline = {pipeline!r}\n')
    model = build_segmentor(**options)
    balance_classes(model)
    torch.save({'state_dict': model.state_dict()}, checkpoint)
    return config, checkpoint


@torch.no_grad()
def balance_classes(model: nn.Module) -> None:
    """Give every class the same mean score on a scene, so that all of them occur in labels."""
    channels = model.backbone.in_channels
    scene = torch.from_numpy(generate_scene(0, (64, 64)).image).permute(2, 0, 1).double()
    image = scene[torch.arange(channels) % 3]
    preprocessor = model.data_preprocessor
    logits = model(((image - preprocessor.mean) / preprocessor.std).float()[None])
    model.decode_head.conv_seg.bias.sub_(logits.mean((0, 2, 3)))


@torch.no_grad()
def randomize(model: nn.Module, seed: int = 0) -> None:
    """Give every parameter and running statistic a value of its own."""
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)

    for module in model.modules():
        own = [*module.parameters(recurse=False)]
        for tensor in own:
            tensor.add_(0.2 * noise(tensor))
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.copy_(0.2 * noise(module.running_mean))
            module.running_var.copy_(0.5 + noise(module.running_var).abs())
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            module.weight.copy_(0.1 * noise(module.weight))
        elif isinstance(module, RPReLU):
            module.slope.copy_(0.3 * noise(module.slope))
        elif isinstance(module, AttentionQuantizer):
            module.alpha.copy_(0.02 + 0.1 * noise(module.alpha).abs())
            module.initialized.fill_(1)


@torch.no_grad()
def simulated_logits(model: nn.Module, image: np.ndarray) -> np.ndarray:
    """Logits of the simulation in float64, through its own preprocessor, of a red-first image."""
    model = model.double()
    channels = image.shape[2]
    order = [2, 1, 0, *range(3, channels)] if channels >= 3 else list(range(channels))
    files_order = torch.from_numpy(image[..., order].transpose(2, 0, 1).copy())
    inputs = model.data_preprocessor({'inputs': [files_order]})['inputs']
    return model(torch.stack(list(inputs)).double())[0].numpy()


def picture(size: Sequence[int], channels: int = 3, seed: int = 0) -> np.ndarray:
    """Return a random image ``(*size, channels)``, uint8."""
    return np.random.default_rng(seed).integers(0, 256, (*size, channels), np.uint8)
