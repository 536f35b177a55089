"""A trained segmentor that is asked and never trained.

It is deliberately no ``nn.Module``: what a model registers as a module is trained, saved, averaged
and wrapped along with it. The one thing it has to follow its student in is the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from bhvit_seg.checkpoint import load_weights
from bhvit_seg.errors import UserError, find_user_error, first_line


class FrozenTeacher:
    """Any segmentor of mmseg with its weights, in evaluation mode and without gradients.

    Copies of a student, such as its moving average, share one teacher.

    Args:
        config: Its config file, or the config of the model itself.
        checkpoint: Its checkpoint.

    Raises:
        UserError: Neither a file nor a config of a model was given, or no checkpoint.
    """

    def __init__(self, config: str | Path | dict, checkpoint: str | Path) -> None:
        if not checkpoint or not isinstance(checkpoint, (str, Path)):
            raise UserError(f'model.teacher.checkpoint is {checkpoint!r}: give the path of a .pth '
                            'file of a trained teacher')
        if not isinstance(config, (str, Path, dict)) or isinstance(config, dict) and \
                'type' not in config:
            raise UserError(f'model.teacher.config is {config!r}: give the path of a config, or '
                            'the config of a segmentor with its type')
        self.config = config
        self.checkpoint = checkpoint
        self.segmentor: nn.Module | None = None
        self._features: Sequence[Tensor] = ()

    def __deepcopy__(self, memo: dict) -> FrozenTeacher:
        return self

    def load(self, device: torch.device | str) -> None:
        """Build the segmentor and load its weights.

        Raises:
            UserError: Config or checkpoint is missing, damaged, or does not fit the other.
        """
        segmentor = MODELS.build(self._model_config())
        load_weights(segmentor, self.checkpoint)
        source = segmentor.neck if segmentor.with_neck else segmentor.backbone
        source.register_forward_hook(self._keep_features)
        self.segmentor = segmentor.requires_grad_(False).eval().to(device)

    def _model_config(self) -> dict[str, Any]:
        if isinstance(self.config, dict):
            return self.config
        if not Path(self.config).is_file():
            raise UserError(f'no config of a teacher at {self.config}: set model.teacher.config '
                            'to the one it was trained with')
        try:
            model = Config.fromfile(str(self.config)).get('model')
        except Exception as error:
            if find_user_error(error):
                raise
            raise UserError(f"the teacher's config {self.config} cannot be read: "
                            f'{type(error).__name__}: {first_line(error)}') from error
        if not model:
            raise UserError(f"the teacher's config {self.config} has no model: give the one it "
                            'was trained with')
        return model

    def _keep_features(self, module: nn.Module, inputs: Any, features: Sequence[Tensor]) -> None:
        self._features = features

    def apply_to_tensors(self, function: Callable[[Tensor], Tensor]) -> None:
        """Do to its tensors what ``nn.Module._apply`` does to those of the student."""
        if self.segmentor is not None:
            self.segmentor._apply(function)

    @torch.no_grad()
    def __call__(self, inputs: Tensor,
                 data_samples: Sequence[SegDataSample]) -> tuple[Tensor, Sequence[Tensor]]:
        """Return what the teacher says about images.

        Args:
            inputs: Images ``(B, C, H, W)`` as the student gets them.
            data_samples: One for each image.

        Returns:
            Logits ``(B, classes, H, W)`` and the feature maps that its head gets.
        """
        size = inputs.shape[2:]
        metas = [{**sample.metainfo, 'img_shape': size, 'pad_shape': size}
                 for sample in data_samples]
        logits = self.segmentor.encode_decode(inputs, metas)
        features, self._features = self._features, ()
        return logits, features


def same_inputs(first: nn.Module, second: nn.Module) -> bool:
    """Whether two segmentors make the same inputs of an image: means, deviations, channel order.

    Two pixels of an image show it, whatever the classes of the preprocessors: they are affine.
    """
    channels = getattr(first.data_preprocessor, 'mean', torch.empty(3)).numel()
    pixels = 10.0 * torch.arange(2 * channels).view(channels, 1, 2)
    made = []
    for segmentor in (first, second):
        try:
            inputs = segmentor.data_preprocessor({'inputs': [pixels]}, False)['inputs']
        except (RuntimeError, UserError):  # another number of channels
            return False
        made.append(torch.stack(list(inputs)).cpu())
    return made[0].shape == made[1].shape and torch.allclose(*made)
