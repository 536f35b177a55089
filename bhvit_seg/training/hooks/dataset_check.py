"""Checks the files of the data sets before iteration 1, or before a test."""

from __future__ import annotations

import os.path as osp

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from bhvit_seg.datasets.checks import check_dataset
from bhvit_seg.errors import UserError
from bhvit_seg.fileio import write_text
from bhvit_seg.training.runner import model_of


@HOOKS.register_module()
class DatasetCheckHook(Hook):
    """Ends a run whose data set cannot be trained on or scored, with one sentence.

    So does a teacher that learned other classes than the data set has.

    ``dataset_check_{split}.txt`` in the work dir lists everything found;
    ``dataset_check_{split}.json`` beside it remembers the files, so that a resumed run starts at
    once. The main process checks, the others wait for its verdict.

    Args:
        splits: Which of ``train``, ``val`` and ``test`` are checked where they are used.

    Raises:
        UserError: A data set has problems; the sentence gives the first and their number.
    """

    # Before hooks that write: a run that stops here leaves nothing.
    priority = 'VERY_HIGH'

    def __init__(self, splits=('train', 'val', 'test')) -> None:
        unknown = sorted(set(splits) - {'train', 'val', 'test'})
        if unknown:
            raise UserError(f'splits of DatasetCheckHook has {unknown[0]!r}: expected some of '
                            "'train', 'val', 'test'")
        self.splits = tuple(splits)
        self._checked = set()

    def before_train(self, runner) -> None:
        model, dataset = model_of(runner), runner.train_dataloader.dataset
        if hasattr(model, 'check_classes'):
            model.check_classes(dataset.metainfo['classes'])
        self._check(runner, 'train', runner.train_dataloader)
        if runner.val_loop is not None:
            self.before_val(runner)

    def before_val(self, runner) -> None:
        self._check(runner, 'val', runner.val_dataloader, runner.val_evaluator)

    def before_test(self, runner) -> None:
        self._check(runner, 'test', runner.test_dataloader, runner.test_evaluator)

    def _check(self, runner, split: str, dataloader, evaluator=None) -> None:
        if split not in self.splits or split in self._checked:
            return
        self._checked.add(split)
        verdict = [None]
        if is_main_process():
            try:
                verdict = [self._find_problem(runner, split, dataloader, evaluator)]
            except Exception as error:
                # The others must not wait for a process that has ended.
                verdict = [f'the check of the {split} data failed: {error}']
                broadcast_object_list(verdict)
                raise
        broadcast_object_list(verdict)
        if verdict[0] is not None:
            raise UserError(verdict[0])

    def _find_problem(self, runner, split: str, dataloader, evaluator) -> str | None:
        model = model_of(runner)
        mean = getattr(model.data_preprocessor, 'mean', None)
        heads = [getattr(model, name, None) for name in ('decode_head', 'auxiliary_head')]
        where = osp.join(runner.work_dir, f'dataset_check_{split}')
        report = check_dataset(
            dataloader.dataset, split,
            channels=None if mean is None or mean.numel() == 1 else mean.numel(),
            head_classes=tuple(head.num_classes for head in heads if hasattr(head, 'num_classes')),
            needs_masks=evaluator is None or not all(
                getattr(metric, 'format_only', False) for metric in evaluator.metrics),
            batch_size=getattr(dataloader, 'batch_size', None) or 1,
            cache_file=f'{where}.json')
        write_text(f'{where}.txt', report.summary(max_problems=None) + '\n')
        for warning in report.warnings:
            runner.logger.warning(f'{split} data: {warning}')
        if not report.problems:
            runner.logger.info(f'{split} data checked: {report.num_images} images, see {where}.txt')
            return None
        runner.logger.error(report.summary())
        return f'{report.first_problem()}; {where}.txt lists all that was found'
