"""Exact comparison of checkpoints and of trainings of which one was killed."""

import itertools
from pathlib import Path
from unittest import mock

import pytest
import torch

from bhvit_seg.models.weights import load_checkpoint_safely


def assert_same(left, right, path: str = '') -> None:
    """Compare nested containers of tensors and values exactly."""
    assert type(left) is type(right), path
    if isinstance(left, dict):
        assert list(left) == list(right), path
        for key in left:
            assert_same(left[key], right[key], f'{path}.{key}')
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), path
        for number, (a, b) in enumerate(zip(left, right)):
            assert_same(a, b, f'{path}.{number}')
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right), path
    else:
        assert left == right, path


def die_at(number: int, owner: type, name: str, run) -> None:
    """Run what is interrupted, as by Ctrl-C, at a call (from 0 on) of a method of a class."""
    method, calls = getattr(owner, name), itertools.count()

    def dying(self, *args, **kwargs):
        if next(calls) == number:
            raise KeyboardInterrupt
        return method(self, *args, **kwargs)

    with mock.patch.object(owner, name, dying), pytest.raises(KeyboardInterrupt):
        run()


def assert_same_training(checkpoint: str, *folders: Path) -> None:
    """Compare the weights and the losses, which differ from iteration to iteration."""
    one, other = (load_checkpoint_safely(folder / checkpoint) for folder in folders)
    assert_same(one['state_dict'], other['state_dict'])
    losses, others = (list(content['message_hub']['log_scalars']['train/loss'].data[0])
                      for content in (one, other))
    assert losses == others and len(set(losses)) == len(losses) > 1
