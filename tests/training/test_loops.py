import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from bhvit_seg.errors import UserError
from bhvit_seg.training.loops import (
    SampleKey,
    SeededDataset,
    SeekableSampler,
    derive_seed,
    make_seekable,
)


class Noise(Dataset):
    """Returns its index and a draw of each generator."""

    metainfo = {'classes': ('a', 'b')}

    def __init__(self, size: int = 10) -> None:
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return index, random.random(), np.random.rand(), torch.rand(()).item()


def take(sampler: SeekableSampler, count: int) -> list[SampleKey]:
    return list(itertools.islice(iter(sampler), count))


def sampler_of(size: int, rank: int = 0, world_size: int = 1, shuffle: bool = True):
    sampler = SeekableSampler(range(size), shuffle=shuffle)
    sampler.rank, sampler.world_size = rank, world_size
    return sampler


@given(size=st.integers(1, 20), start=st.integers(0, 60), world_size=st.integers(1, 4),
       seed=st.integers(0, 2**32 - 1))
def test_seeking_equals_running_there(size, start, world_size, seed):
    for rank in range(world_size):
        beginning, later = (sampler_of(size, rank, world_size) for _ in range(2))
        beginning.seek(0, seed)
        later.seek(start, seed)
        assert take(later, 25) == take(beginning, start + 25)[start:]


@given(size=st.integers(1, 20), world_size=st.integers(1, 4), seed=st.integers(0, 100))
def test_ranks_share_whole_permutations(size, world_size, seed):
    passes = 3 * world_size
    streams = []
    for rank in range(world_size):
        sampler = sampler_of(size, rank, world_size)
        sampler.seek(0, seed)
        streams.append(take(sampler, 3 * size))
    stream = [key for keys in zip(*streams) for key in keys]
    assert [key.position for key in stream] == list(range(size * passes))
    for number in range(passes):
        order = [key.index for key in stream[number * size:(number + 1) * size]]
        assert sorted(order) == list(range(size))


class TwoParts(Noise):
    labelled, share = 7, 0.25


@given(start=st.integers(0, 30), world_size=st.integers(1, 3))
def test_each_batch_has_its_share_of_the_second_part(start, world_size):
    streams = []
    for rank in range(world_size):
        sampler = SeekableSampler(SeededDataset(TwoParts(12)))
        sampler.rank, sampler.world_size = rank, world_size
        sampler.seek(0, 5)
        streams.append(take(sampler, 140))
        sampler.seek(start, 5)
        assert take(sampler, 20) == streams[-1][start:start + 20]
    stream = [key for keys in zip(*streams) for key in keys]
    assert [key.position for key in stream] == list(range(140 * world_size))
    for stream_of_rank in streams:
        for first in range(0, 140, 4):
            assert sum(key.index >= 7 for key in stream_of_rank[first:first + 4]) == 1
    # Each part comes in whole permutations.
    for low, high in ((0, 7), (7, 12)):
        part = [key.index for key in stream if low <= key.index < high]
        for first in range(0, len(part) - (high - low) + 1, high - low):
            assert sorted(part[first:first + high - low]) == list(range(low, high))


def test_order_is_kept_or_another_in_each_pass_and_with_each_seed():
    sampler = sampler_of(3, shuffle=False)
    assert take(sampler, 3) == []  # nothing is prefetched before the position is known
    sampler.seek(2, 0)
    assert [key.index for key in take(sampler, 5)] == [2, 0, 1, 2, 0]
    sampler = sampler_of(50)
    sampler.seek(0, 1)
    orders = [sampler.order(number).tolist() for number in (0, 1)]
    sampler.seek(0, 2)
    orders.append(sampler.order(0).tolist())
    assert len(set(map(tuple, orders))) == 3
    with pytest.raises(UserError, match='no samples'):
        SeekableSampler([])


def test_sample_is_a_function_of_its_key_and_leaves_the_generators_alone():
    dataset = SeededDataset(Noise())
    key = SampleKey(seed=3, position=17, index=4)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(()).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = dataset[key]
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected
    assert dataset[key] == first and first[0] == 4
    assert dataset[key._replace(position=18)] != first
    assert dataset[key._replace(seed=4)] != first
    assert dataset.metainfo == Noise.metainfo and not hasattr(dataset, 'full_init')


def test_derived_seeds_differ_and_are_the_same_everywhere():
    seeds = {derive_seed(*numbers) for numbers in itertools.product(range(10), repeat=3)}
    assert len(seeds) == 1000
    assert derive_seed(1, 2) == 1596810411


@pytest.mark.parametrize('config, words', [
    ({'dataset': {}, 'sampler': {'type': 'WeightedSampler'}}, 'WeightedSampler'),
    ({'dataset': {}, 'batch_sampler': {'type': 'AspectRatioBatchSampler'}}, 'batch_sampler'),
])
def test_samplers_without_position_are_refused(config, words):
    with pytest.raises(UserError, match=f'{words}.*IterBasedTrainLoop'):
        make_seekable(config)
