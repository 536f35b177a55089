"""A training loop that can be killed at any moment and resumes to the same loss curve.

Data order and augmentation are functions of (seed, position in the stream of samples), random
numbers of the model (drop path, dropout) of (seed, iteration, rank). Resuming therefore jumps to
its iteration, without reading earlier data again as ``IterBasedTrainLoop`` does. On the CPU the
curve is exactly that of an uninterrupted run; on a GPU up to its kernels
(``randomness=dict(deterministic=True)``).
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Iterator, Sized
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, get_dist_info
from mmengine.runner import IterBasedTrainLoop
from mmseg.registry import DATASETS, LOOPS
from torch.utils.data import Dataset, Sampler

from bhvit_seg.errors import UserError

# The iteration after which the model was last validated, in the message hub.
VALIDATED = 'last_validated_iter'
SEEKABLE = ('InfiniteSampler', 'DefaultSampler')


class SampleKey(NamedTuple):
    seed: int  # of the run, which a worker process may not know when it starts
    position: int
    index: int


def derive_seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the CPU generators of Python, NumPy and torch, and restore their states at the end."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class SeededDataset(Dataset):
    """A dataset, or its config, whose augmentations depend only on the sample's key."""

    def __init__(self, dataset: dict | Dataset) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset

    def __getitem__(self, key: SampleKey) -> Any:
        with seeded(derive_seed(key.seed, key.position)):
            return self.dataset[key.index]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        # Only asked for what this object lacks; `dataset` itself is missing while unpickling.
        if name == 'dataset' or name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.dataset, name)


class SeekableSampler(Sampler):
    """An endless stream of sample keys that can start at any position without cost.

    The stream is a sequence of permutations of the dataset, each a function of (seed, its number);
    the process of rank r takes positions r, r + world size, ... . A ``PartlyLabelledDataset`` has a
    stream for each part, and ``share`` of the samples come from the second, evenly spread. Before
    :meth:`seek` the stream is empty: mmengine 0.10.7 prefetches as soon as the loop is built.
    """

    def __init__(self, dataset: Sized, seed: int | None = None, shuffle: bool = True) -> None:
        self.size = len(dataset)
        if not self.size:
            raise UserError(
                'the training dataset has no samples: train_dataloader.dataset expects images '
                'under data_root and data_prefix with the suffixes it names')
        self.share = Fraction(getattr(dataset, 'share', 0)).limit_denominator(1000)
        # Where the parts begin in the dataset, and their sizes.
        first = dataset.labelled if self.share else self.size
        self.parts = ((0, first), (first, self.size - first))
        self.seed = seed
        self.shuffle = shuffle
        self.rank, self.world_size = get_dist_info()
        self.start: int | None = None

    def seek(self, start: int, seed: int) -> None:
        """Let the next iteration begin after ``start`` samples of this process."""
        self.start, self.seed = start, seed

    def order(self, epoch: int, part: int = 0) -> np.ndarray:
        """Return the indices of a part of the dataset in pass number ``epoch``."""
        begin, size = self.parts[part]
        if not self.shuffle:
            return begin + np.arange(size)
        seed = (self.seed, epoch, part) if part else (self.seed, epoch)
        return begin + np.random.default_rng(seed).permutation(size)

    def __iter__(self) -> Iterator[SampleKey]:
        orders = [(None, None), (None, None)]
        for number in () if self.start is None else itertools.count(self.start):
            before = number * self.share.numerator // self.share.denominator
            part = (number + 1) * self.share.numerator // self.share.denominator - before
            place = (before if part else number - before) * self.world_size + self.rank
            epoch, place = divmod(place, self.parts[part][1])
            if epoch != orders[part][0]:
                orders[part] = epoch, self.order(epoch, part)
            yield SampleKey(self.seed, number * self.world_size + self.rank,
                            int(orders[part][1][place]))

    def __len__(self) -> int:
        return self.size


@LOOPS.register_module()
class ResumableTrainLoop(IterBasedTrainLoop):
    """``IterBasedTrainLoop`` whose resumed runs equal uninterrupted ones, with the same config.

    The sampler must be an ``InfiniteSampler`` or ``DefaultSampler``; a :class:`SeekableSampler`
    replaces it. Checkpoints must be written between gradient accumulations
    (``ResumableCheckpointHook``).
    """

    def __init__(self, runner, dataloader: dict, max_iters: int, **kwargs) -> None:
        super().__init__(runner, make_seekable(dataloader), max_iters, **kwargs)

    def run(self) -> torch.nn.Module:
        """Train from the iteration of the checkpoint, or from the first, to the last."""
        runner = self.runner
        runner.call_hook('before_train')
        runner.call_hook('before_train_epoch')
        # The seed of the first process: the one the checkpoint keeps. It is drawn where the config
        # has none, and differs between ranks under `diff_rank_seed`.
        seeds = [runner.seed]
        broadcast_object_list(seeds)
        self._seed = seeds[0]
        self.dataloader.sampler.seek(self._iter * self.dataloader.batch_size, self._seed)
        self.dataloader_iterator = iter(self.dataloader)

        if self._iter > 0 and runner.message_hub.runtime_info.get(VALIDATED) != self._iter:
            # The checkpoint was written between the training step and the validation due then.
            self.validate_if_due()
        while self._iter < self._max_iters and not self.stop_training:
            runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self.validate_if_due()

        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model

    def run_iter(self, data_batch: dict) -> None:
        """Seed the model's random numbers in this iteration, then train on ``data_batch``."""
        seed = derive_seed(self._seed, self._iter, get_dist_info()[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        super().run_iter(data_batch)

    def validate_if_due(self) -> None:
        self._decide_current_val_interval()
        due = self._iter >= self.val_begin and (
            self._iter % self.val_interval == 0 or self._iter == self._max_iters)
        if due and self.runner.val_loop is not None:
            # Recorded before the run, which ends with the checkpoint of the best model so far.
            self.runner.message_hub.update_info(VALIDATED, self._iter)
            self.runner.val_loop.run()


def make_seekable(dataloader: dict) -> dict:
    """Return the dataloader config with the dataset and sampler of this module."""
    sampler = dict(dataloader.get('sampler') or {'type': 'InfiniteSampler'})
    name = getattr(sampler['type'], '__name__', sampler['type'])
    if name.split('.')[-1] not in SEEKABLE or dataloader.get('batch_sampler') is not None:
        raise UserError(f'train_dataloader.sampler is {name}, batch_sampler '
                        f'{dataloader.get("batch_sampler")}, but ResumableTrainLoop can only jump '
                        f'within {" or ".join(SEEKABLE)}: choose one of them alone, or train with '
                        "train_cfg.type='IterBasedTrainLoop', which resumes by loading the data "
                        'again')
    return {
        **dataloader,
        'dataset': {'type': SeededDataset, 'dataset': dataloader['dataset']},
        'sampler': {'type': SeekableSampler, 'shuffle': sampler.get('shuffle', True)},
    }
