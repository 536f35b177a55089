"""Pre-training by imitation: a backbone learns the feature maps of another on unlabelled images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from mmengine.model import BaseModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from bhvit_seg.errors import UserError

from .losses.distillation import FeatureDistillationLoss

IGNORED = 255


@MODELS.register_module()
class ImitationModel(BaseModel):
    """A backbone whose maps, after 1×1 convolutions, imitate those of a frozen teacher.

    The loss of a map is the mean over positions of ``1 - cos(adapter(student), teacher - mean)``,
    where ``mean`` is that of each channel over the batch. Pixels labelled 255 (no data, padding)
    are ignored. The teacher is not part of optimizers and checkpoints; a checkpoint serves as
    ``init_cfg`` of the backbone.

    Args:
        backbone: Config of the backbone that learns.
        teacher: Config of the teacher's backbone, with the ``init_cfg`` that loads its weights. It
            gets the first three channels of the images.
        map_weights: Factor of each map's loss, finest first. Defaults to 1 over the number of maps.
    """

    def __init__(self, backbone: dict, teacher: dict, map_weights: Sequence[float] | None = None,
                 data_preprocessor: dict | None = None, init_cfg: dict | None = None) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        teacher = MODELS.build(teacher).requires_grad_(False)
        # Bypasses nn.Module, which would train and save it.
        object.__setattr__(self, 'teacher', teacher)
        mine = _map_channels(self.backbone, getattr(self.backbone, 'in_channels', 3))
        theirs = _map_channels(teacher, 3)
        if len(mine) != len(theirs):
            raise UserError(f'the teacher has {len(theirs)} maps, the backbone {len(mine)}: set '
                            'out_indices of both to maps of the same strides')
        weights = [1 / len(mine)] * len(mine) if map_weights is None else list(map_weights)
        if len(weights) != len(mine):
            raise UserError(f'map_weights has {len(weights)} numbers: give one for each of the '
                            f'{len(mine)} maps')
        # Half the squared distance of two vectors of length 1 is 1 - cos.
        self.losses = nn.ModuleList(
            FeatureDistillationLoss((index,), (own,), (other,), loss_weight=weight / 2)
            for index, (own, other, weight) in enumerate(zip(mine, theirs, weights)))

    def init_weights(self) -> None:
        super().init_weights()
        self.teacher.init_weights()

    def forward(self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None,
                mode: str = 'tensor') -> dict[str, Tensor] | tuple[Tensor, ...]:
        """Return ``loss_map0`` and on (``mode='loss'``), or the maps of ``inputs`` (B, C, H, W)."""
        maps = self.backbone(inputs)
        if mode != 'loss':
            return maps
        with torch.no_grad():
            targets = self.teacher.eval()(inputs[:, :3])
            targets = [target - target.mean((0, 2, 3), keepdim=True) for target in targets]
        labels = torch.stack([sample.gt_sem_seg.data for sample in data_samples]).squeeze(1)
        return {f'loss_map{index}': loss(maps, targets, labels, IGNORED)
                for index, loss in enumerate(self.losses)}

    def _apply(self, fn: Callable, *args, **kwargs) -> nn.Module:
        self.teacher._apply(fn)
        return super()._apply(fn, *args, **kwargs)


@torch.no_grad()
def _map_channels(backbone: nn.Module, in_channels: int) -> tuple[int, ...]:
    training = backbone.training
    maps = backbone.eval()(torch.zeros(1, in_channels, 64, 64))
    backbone.train(training)
    return tuple(m.shape[1] for m in maps)
