"""Segmentation with a teacher, by logits and feature maps.

The paper's teacher is a classifier; here it is usually the full-precision twin. Checkpoints are
those of a plain ``EncoderDecoder``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor, nn

from bhvit_seg.errors import UserError

from ..losses.distillation import UNLABELLED
from ..teacher import FrozenTeacher, TaughtMixin


class SegmentorTeacher(FrozenTeacher):
    registry = MODELS
    _features: Sequence[Tensor] = ()

    def load(self, device: torch.device | str) -> None:
        super().load(device)
        heads = getattr(self.model, 'decode_head', None)
        head = heads[-1] if isinstance(heads, nn.ModuleList) else heads
        if not isinstance(head, BaseDecodeHead) or not hasattr(self.model, 'backbone'):
            raise UserError(f'the teacher {self.checkpoint} is a {type(self.model).__name__} with '
                            f'a {type(head).__name__}, which gives no logits of classes: set '
                            'model.teacher to a segmentor with a backbone and a decode head')
        source = self.model.neck if self.model.with_neck else self.model.backbone
        source.register_forward_hook(lambda _, inputs, maps: setattr(self, '_features', maps))

    @torch.no_grad()
    def __call__(self, inputs: Tensor,
                 data_samples: Sequence[SegDataSample]) -> tuple[Tensor, Sequence[Tensor]]:
        """Return logits ``(B, classes, H, W)`` and the feature maps that the head gets."""
        size = inputs.shape[2:]
        metas = [{**sample.metainfo, 'img_shape': size, 'pad_shape': size}
                 for sample in data_samples]
        logits = self.model.encode_decode(inputs, metas)
        features, self._features = self._features, ()
        return logits, features


@MODELS.register_module()
class DistillationSegmentor(TaughtMixin, EncoderDecoder):
    """``EncoderDecoder`` that learns from labels and from a teacher, which gets the same images.

    Pixels labelled with the head's ``ignore_index`` count in no term; those labelled 254
    (``UNLABELLED``) count in the teacher's terms.

    Args:
        teacher: ``config`` of the teacher, a file or the config of its model, and ``checkpoint``.
        distillation_weight: λ; the default is the paper's.
        pixel_loss: The loss between logits. Defaults to ``PixelDistillationLoss``.
        feature_loss: The loss between feature maps, such as ``FeatureDistillationLoss``.
        student_distortion: Distorts images without any label for the student alone, such as
            ``StrongDistortion``.
        **kwargs: As for ``EncoderDecoder``.

    Raises:
        UserError: λ is not a fraction, or ``teacher`` is not as described; when training begins:
            its files are missing or do not fit together; on use: it has other classes or maps of
            another size, or other normalisation of images.
    """

    def __init__(self, *args, teacher: dict, distillation_weight: float = 0.8,
                 pixel_loss: dict | None = None, feature_loss: dict | None = None,
                 student_distortion: dict | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.set_teacher(SegmentorTeacher, teacher, distillation_weight)
        self.pixel_loss = MODELS.build(pixel_loss or dict(type='PixelDistillationLoss'))
        self.feature_loss = MODELS.build(feature_loss) if feature_loss else None
        self.student_distortion = MODELS.build(student_distortion) if student_distortion else None

    def loss(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """Compute all terms but the regularization, of images ``(B, C, H, W)`` and their labels.

        Returns:
            The losses of the heads times 1 − λ − β, ``loss_distillation`` and, with a
            ``feature_loss``, ``loss_feature_distillation`` times λ, and the heads' accuracies.
        """
        self.load_teacher()
        labels = torch.stack([sample.gt_sem_seg.data for sample in data_samples]).squeeze(1)
        ignore_index = self.decode_head.ignore_index
        features = self.extract_feat(self._distorted(inputs, labels))
        logits = self.decode_head(features)
        labelled = [
            SegDataSample(metainfo=sample.metainfo, gt_sem_seg=PixelData(
                data=sample.gt_sem_seg.data.masked_fill(sample.gt_sem_seg.data == UNLABELLED,
                                                        ignore_index)))
            for sample in data_samples]
        losses = add_prefix(self.decode_head.loss_by_feat(logits, labelled), 'decode')
        if self.with_auxiliary_head:
            losses.update(self._auxiliary_head_forward_train(features, labelled))
        losses = {name: self.weigh_labels(value) if 'loss' in name else value
                  for name, value in losses.items()}

        logits = resize(logits, labels.shape[1:], mode='bilinear', align_corners=self.align_corners)
        taught, taught_features = self.teacher(inputs, data_samples)
        losses['loss_distillation'] = self.distillation_weight * self.pixel_loss(
            logits, taught, labels, ignore_index)
        if self.feature_loss is not None:
            losses['loss_feature_distillation'] = self.distillation_weight * self.feature_loss(
                features, taught_features, labels, ignore_index)
        return losses

    def _distorted(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Distort those of the images ``(B, C, H, W)`` that have no label at all."""
        if self.student_distortion is None:
            return inputs
        chosen = (labels >= UNLABELLED).flatten(1).all(1).view(-1, 1, 1, 1)
        return torch.where(chosen, self.student_distortion(inputs), inputs)
