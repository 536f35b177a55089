"""Pre-training a backbone by imitation of a teacher, from a segmentor's config and images."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from bhvit_seg.datasets.unlabelled import find_images
from bhvit_seg.errors import UserError
from bhvit_seg.fileio import write_atomically, write_bytes
from bhvit_seg.models.weights import state_dict_of
from bhvit_seg.training.config import check_options, load_config, require_settings
from bhvit_seg.training.train import run_training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The teachers that packages ship, by the name of their architecture.
TEACHERS = ('lite0', 'lite1', 'lite2')
WARM_UP = 100


def imitation_config(cfg: Config, images: Sequence[str | Path], teacher: str = 'lite0',
                     iterations: int = 20000, batch_size: int = 8, crop_size: int = 128,
                     weights_begin: float = 0.4, lr: float = 2e-3) -> Config:
    """Return the config of a pre-training by imitation.

    Args:
        cfg: Config of a segmentor; its backbone and data preprocessor are used with the first three
            channels only, and ``init_cfg`` adapts the stem to more.
        images: Folders of images, rasters.
        teacher: ``'lite0'``, ``'lite1'`` or ``'lite2'``: an EfficientNet with ImageNet weights.
        crop_size: Side of a crop (pixels).
        weights_begin: Fraction of training after which the weights are binary; activations always
            are. Without effect on a full-precision backbone.
        lr: Highest learning rate.
    """
    if teacher not in TEACHERS:
        raise UserError(f'teacher is {teacher!r}: give one of {", ".join(TEACHERS)}')
    for name, value in (('iterations', iterations), ('batch size', batch_size),
                        ('crop size', crop_size)):
        if value < 1:
            raise UserError(f'{name} is {value}: give a positive number')
    preprocessor = copy.deepcopy(
        cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {})
    if len(preprocessor.get('mean') or ()) < 3 or not (
            preprocessor.get('bgr_to_rgb') or preprocessor.get('rgb_to_bgr')):
        raise UserError('the data_preprocessor of the config needs bgr_to_rgb=True and the mean '
                        'and std of red, green and blue: the teacher has seen images in colours')
    mean, std = (list(preprocessor[name][:3]) for name in ('mean', 'std'))
    preprocessor.update(size=(crop_size, crop_size), mean=mean, std=std)
    backbone = copy.deepcopy(cfg.model.backbone)
    if backbone.get('in_channels', 3) != 3:
        backbone['in_channels'] = 3
    warm_up = min(WARM_UP, max(iterations // 10, 1))
    interval = max(1, min(250, iterations // 4))
    hooks = dict(  # beside those that mmengine has by default
        logger=dict(type='LoggerHook', interval=min(50, interval), log_metric_by_epoch=False),
        checkpoint=dict(type='ResumableCheckpointHook', by_epoch=False, interval=interval,
                        max_keep_ckpts=2),
        loss_plot=dict(type='LossPlotHook', interval=interval))
    if backbone.get('binary', True) and weights_begin:
        hooks['training_stages'] = dict(type='TrainingStagesHook', weights_begin=weights_begin,
                                        rest_begin=1.0)
    return Config(dict(
        default_scope='mmseg',
        custom_imports=dict(imports=['bhvit_seg.modules'], allow_failed_imports=False),
        model=dict(
            type='ImitationModel', backbone=backbone, data_preprocessor=preprocessor,
            teacher=dict(type='EfficientNetLite', arch=teacher, img_mean=mean, img_std=std,
                         init_cfg=dict(type='Pretrained', checkpoint='imagenet'))),
        train_dataloader=dict(
            batch_size=batch_size, num_workers=2, persistent_workers=True,
            sampler=dict(type='InfiniteSampler', shuffle=True),
            dataset=dict(type='UnlabelledDataset', images=list(map(str, images)), pipeline=[
                dict(type='LoadUnlabelledImage'),
                dict(type='RandomScaleCrop', crop_size=(crop_size, crop_size),
                     ratio_range=(0.5, 1.5)),
                dict(type='RandomFlip', prob=0.5, direction='horizontal'),
                dict(type='RandomRotFlip', rotate_prob=0.0, flip_prob=1.0),
                dict(type='PackSegInputs')])),
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=0.0)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, begin=0, end=warm_up, by_epoch=False),
            dict(type='CosineAnnealingLR', eta_min=0.0, begin=warm_up, end=iterations,
                 T_max=max(iterations - warm_up, 1), by_epoch=False)],
        train_cfg=dict(type='ResumableTrainLoop', max_iters=iterations),
        default_hooks=hooks,
        custom_hooks=[dict(type='NonFiniteLossHook')],
        log_processor=dict(by_epoch=False),
        **{name: cfg[name] for name in ('env_cfg', 'randomness', 'log_level') if name in cfg}))


def pretrain(config: str | Path, images: Sequence[str | Path], work_dir: str | Path | None = None,
             resume: bool | str | Path | None = None, seed: int | None = None,
             cfg_options: dict[str, Any] | None = None, amp: bool = False, **settings) -> Path:
    """Pre-train the backbone of a segmentor's config.

    Args:
        work_dir, resume, seed, amp: As for :func:`bhvit_seg.training.train.train`.
        cfg_options: Settings by dotted key that override those of :func:`imitation_config`.
        images, **settings: As for :func:`imitation_config`.

    Returns:
        ``backbone.pth`` in the work dir: weights alone, for ``init_cfg`` of the backbone.
    """
    segmenter = load_config(config)
    require_settings(segmenter, config, 'model')
    cfg = imitation_config(segmenter, images, **settings)
    # Before anything is written or loaded.
    find_images(images)
    name = f'{Path(config).stem}_imitation'
    cfg._filename = str(Path(config).with_name(f'{name}.py'))
    if cfg_options:
        check_options(cfg, cfg_options)
        cfg.merge_from_dict(cfg_options)
    runner = run_training(cfg, work_dir or Path('work_dirs') / name, resume, amp, seed)
    target = Path(cfg.work_dir) / 'backbone.pth'
    state = state_dict_of({'state_dict': runner.model.state_dict()})
    torch.save({'state_dict': {name: value.cpu() for name, value in state.items()
                               if name.startswith('backbone.')}, 'meta': {}},
               content := io.BytesIO())
    write_bytes(target, content.getvalue())  # torch itself does not say that a disk is full
    return target


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, outside of any window system."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout='constrained')


def save_figure(figure: Figure, path: str | Path) -> None:
    with write_atomically(path) as partial:
        figure.savefig(partial)


@HOOKS.register_module()
class LossPlotHook(Hook):
    """Draw ``loss.png`` in the work dir every ``interval`` iterations, in means over ``window``."""

    priority = 'VERY_LOW'

    def __init__(self, interval: int, window: int = 50) -> None:
        self.interval = interval
        self.window = window

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.rank != 0 or not (self.every_n_train_iters(runner, self.interval)
                                    or self.is_last_train_iter(runner)):
            return
        figure = new_figure(8, 4.5)
        axes = figure.subplots()
        for name, scalar in sorted(runner.message_hub.log_scalars.items()):
            if name.startswith('train/loss'):
                values = torch.as_tensor(scalar.data[0], dtype=torch.float64)
                window = max(1, min(self.window, len(values) // 10))
                means = values[:len(values) // window * window].view(-1, window).mean(1)
                axes.plot([(i + 1) * window for i in range(len(means))], means.tolist(),
                          label=name[len('train/'):])
        axes.set_xlabel('iteration')
        axes.set_ylabel('loss')
        axes.grid(alpha=0.3)
        axes.legend()
        save_figure(figure, Path(runner.work_dir) / 'loss.png')
