"""Distortions for the student: what each does by itself, and that a seed decides all of them."""

import pytest
import torch
from mmseg.registry import MODELS

import bhvit_seg.models  # noqa: F401
from bhvit_seg.errors import UserError

NONE = dict(gain=0, offset=0, grey=0, blur=0, noise=0, hidden=0)


def distort(images: torch.Tensor, seed: int = 0, **options) -> torch.Tensor:
    torch.manual_seed(seed)
    return MODELS.build(dict(type='StrongDistortion', **options))(images)


@pytest.fixture
def images():
    return torch.randn(3, 4, 10, 12, generator=torch.Generator().manual_seed(1))


def test_a_seed_decides_all(images):
    assert torch.equal(distort(images, **NONE), images)
    before = images.clone()
    first = distort(images, 1)
    assert torch.equal(first, distort(images, 1)) and torch.equal(images, before)
    assert not torch.isclose(first, distort(images, 2)).all()
    assert not torch.allclose(first[0] - images[0], first[1] - images[1])


@pytest.mark.parametrize('only', ['gain', 'offset', 'blur', 'noise', 'hidden'])
def test_each_does_what_it_says(only, images):
    out = distort(images, 2, **{**NONE, only: 1.0})
    difference = out - images
    assert difference.abs().max() > 0
    if only == 'gain':
        factors = (out / images).flatten(2)
        torch.testing.assert_close(factors, factors[..., :1].expand_as(factors))
        assert 0 <= factors.min() and factors.max() <= 4
    elif only == 'offset':
        torch.testing.assert_close(
            difference, difference[:, :1, :1, :1].expand_as(difference), atol=1e-5, rtol=0)
        assert difference.abs().max() <= 1
    elif only == 'blur':
        torch.testing.assert_close(out[:, :, 4, 4], images[:, :, 3:6, 3:6].mean((2, 3)))
        torch.testing.assert_close(out[:, :, 0, 0], images[:, :, :2, :2].mean((2, 3)))
    elif only == 'hidden':
        assert torch.equal(out[out != 0], images[out != 0])
        rows, columns = ((out[0, 0] == 0).any(dim) for dim in (1, 0))
        assert (out[0] == 0).sum() == 4 * rows.sum() * columns.sum()


def test_colour_is_lost_towards_the_mean_of_the_channels(images):
    out = distort(images, **{**NONE, 'grey': 1.0})
    mean = images.mean(1, keepdim=True)
    kept = ((out - mean) / (images - mean)).flatten(1)
    torch.testing.assert_close(kept, kept[:, :1].expand_as(kept), rtol=1e-3, atol=1e-3)
    assert ((kept >= -1e-3) & (kept <= 1.001)).all()


@pytest.mark.parametrize('options', [dict(gain=-0.1), dict(grey=1.5), dict(hidden=2)])
def test_wrong_arguments(options):
    (name, value), = options.items()
    with pytest.raises(UserError, match=f'{name}={value}'):
        distort(torch.zeros(1, 3, 4, 4), **options)
