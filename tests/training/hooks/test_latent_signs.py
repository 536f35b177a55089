from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bhvit_seg.models.quantizers import binarize_weight
from bhvit_seg.training.hooks.latent_signs import latent_signs, pack, unpack


@pytest.mark.parametrize('shape', [(3, 5), (4, 2, 3, 3), (1, 1)])
def test_signs_are_those_of_the_binarized_weights(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 0.5
    binary = binarize_weight(weight).flatten(1).numpy()
    assert np.array_equal(latent_signs(weight).numpy(), np.where(binary < 0, -1, 1))


def test_a_weight_on_its_threshold_counts_as_positive():
    assert latent_signs(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == [[-1, 1, 1]]


@given(rows=st.integers(1, 5), columns=st.integers(1, 20), seed=st.integers(0, 99))
def test_packed_flags_come_back(rows, columns, seed):
    flags = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < 0.5
    packed = pack(flags)
    assert packed.numel() == -(-rows * columns // 8)
    assert torch.equal(unpack(packed, flags), flags)
