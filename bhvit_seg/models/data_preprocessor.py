"""Normalisation and padding of images of any number of channels (mmseg: means of 1 or 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS
from torch import Tensor

from bhvit_seg.errors import UserError


@MODELS.register_module()
class MultiChannelSegDataPreProcessor(SegDataPreProcessor):
    """``SegDataPreProcessor`` for camera, LiDAR and multispectral channels together.

    Args:
        mean, std: One for each channel, in the model's order: red, green, blue, others.
        bgr_to_rgb, rgb_to_bgr: Swap the first and the third channel.
        test_cfg: ``dict(size_divisor=32)`` continues images that are not trained on as mirrored at
            their lower and right border, up to sides that are multiples of 32; predictions have the
            images' own size. Maps of other sides are stretched against each other where a head
            joins them. With ``size`` as in mmseg.
        **kwargs: As in mmseg.

    Raises:
        UserError: ``mean`` and ``std`` differ in length, ``std`` is not positive, or
            ``size_divisor`` is not; on use: an image has another number of channels.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], bgr_to_rgb: bool = False,
                 rgb_to_bgr: bool = False, test_cfg: dict | None = None, **kwargs) -> None:
        test_cfg = dict(test_cfg or {})
        divisor = test_cfg.pop('size_divisor', None)  # mmseg would fill up with zeros
        super().__init__(test_cfg=test_cfg or None, **kwargs)
        self.divisor = 1 if divisor is None else divisor
        if not isinstance(self.divisor, int) or self.divisor < 1:
            raise UserError(f'data_preprocessor.test_cfg.size_divisor is {divisor!r}: give a '
                            'number of pixels, 1 or more')
        if divisor is not None and test_cfg:
            raise UserError('data_preprocessor.test_cfg has size_divisor and '
                            f'{", ".join(test_cfg)}: give size_divisor alone')
        if len(mean) != len(std) or not len(mean):
            raise UserError(f'data_preprocessor has {len(mean)} means and {len(std)} standard '
                            'deviations: give one of each for every channel')
        if min(std) <= 0:
            raise UserError(f'data_preprocessor.std is {list(std)}: every value must be positive')
        if (bgr_to_rgb or rgb_to_bgr) and len(mean) < 3:
            raise UserError(f'data_preprocessor swaps red and blue but has {len(mean)} '
                            'channels: set bgr_to_rgb=False')
        self.swap_red_and_blue = bgr_to_rgb or rgb_to_bgr
        # Not persistent, as in mmengine: they belong to the config, not to the checkpoint.
        for name, values in (('mean', mean), ('std', std)):
            self.register_buffer(
                name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), False)
        self._enable_normalize = True

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalise, pad and stack ``data['inputs']``, images (C, H, W), into (N, C, H, W)."""
        inputs = list(data['inputs'])
        for index, image in enumerate(inputs):
            if image.shape[0] != len(self.mean):
                samples = data.get('data_samples')
                path = samples and samples[index].metainfo.get('img_path')
                raise UserError(
                    f'{f"image {path}" if path else "an image"} has {image.shape[0]} channels, but '
                    f"the config's data_preprocessor has mean and std of {len(self.mean)}: make "
                    "data_preprocessor.mean, .std and the backbone's in_channels fit the images")
        if self.swap_red_and_blue:
            order = [2, 1, 0, *range(3, len(self.mean))]
            inputs = [image[order] for image in inputs]
        if training or self.divisor == 1:
            return super().forward({**data, 'inputs': inputs}, training)
        larger = [mirror(image, self.divisor) for image in inputs]
        for sample, image, own in zip(data.get('data_samples') or (), larger, inputs):
            bottom, right = (a - b for a, b in zip(image.shape[1:], own.shape[1:]))
            sample.set_metainfo({'img_padding_size': (0, right, 0, bottom),
                                 'pad_shape': tuple(image.shape[1:])})
        return super().forward({**data, 'inputs': larger}, training)


def mirror(image: Tensor, divisor: int) -> Tensor:
    """Continue an image ``(C, H, W)`` as mirrored at its lower and right border, without the border
    itself, up to multiples of ``divisor``."""
    for dim in (1, 2):
        length = image.shape[dim]
        if length % divisor:
            index = torch.arange(length + -length % divisor, device=image.device)
            index %= max(2 * (length - 1), 1)
            image = image.index_select(dim, torch.minimum(index, 2 * (length - 1) - index))
    return image
