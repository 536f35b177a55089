"""Exact comparison of checkpoints."""

from __future__ import annotations

import torch


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
