"""Checks the files of the data sets before iteration 1, or before a test."""

from __future__ import annotations

import os.path as osp

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from bhvit_seg.datasets.checks import check_from_config
from bhvit_seg.errors import UserError, first_problem
from bhvit_seg.fileio import write_text
from bhvit_seg.training.runner import model_of


@HOOKS.register_module()
class DatasetCheckHook(Hook):
    """End a run whose data set cannot be trained on or scored, or whose teacher has other classes.

    ``dataset_check_{split}.txt`` in the work dir lists everything found. Only the main process
    checks. A resumed training does not check again.
    """

    priority = 'VERY_HIGH'  # before hooks that write: a run that stops here leaves nothing

    def __init__(self) -> None:
        self._unchecked = {'train', 'val', 'test'}

    def before_train(self, runner) -> None:
        model, dataset = model_of(runner), runner.train_dataloader.dataset
        if hasattr(model, 'check_classes'):
            model.check_classes(dataset.metainfo['classes'])
        if runner.iter > 0:
            self._unchecked -= {'train', 'val'}
        self._check(runner, 'train')
        if runner.val_loop is not None:
            self.before_val(runner)

    def before_val(self, runner) -> None:
        self._check(runner, 'val')

    def before_test(self, runner) -> None:
        self._check(runner, 'test')

    def _check(self, runner, split: str) -> None:
        if split not in self._unchecked:
            return
        self._unchecked.remove(split)
        # For the other processes, which must not wait for one that ends by an error.
        verdict = [f'the check of the {split} data failed']
        try:
            if is_main_process():
                verdict = [self._find_problem(runner, split)]
        finally:
            broadcast_object_list(verdict)
        if verdict[0] is not None:
            raise UserError(verdict[0])

    def _find_problem(self, runner, split: str) -> str | None:
        where = osp.join(runner.work_dir, f'dataset_check_{split}.txt')
        report = check_from_config(runner.cfg, split)
        write_text(where, report.summary(max_problems=None) + '\n')
        for warning in report.warnings:
            runner.logger.warning(f'{split} data: {warning}')
        if not report.problems:
            runner.logger.info(f'{split} data checked: {report.num_images} images, see {where}')
            return None
        runner.logger.error(report.summary())
        return f'{first_problem(report.problems)}; {where} lists all that was found'
