"""Binary ResNets against the formulas of their papers."""

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from plain_bhvit import (
    PlainBHViT,
    assert_gradients_agree,
    assert_outputs_agree,
    binary_activation,
    binary_weight,
    randomize,
)

import benchmarks.baselines  # noqa: F401
import bhvit_seg.models  # noqa: F401

MINI = dict(depths=(1, 2, 1, 2), channels=(8, 16, 24, 32))


def build(**cfg):
    return MODELS.build(dict(dict(type='BinaryResNet', **MINI), **cfg))


class PlainResNet(PlainBHViT):
    """The networks once more, on a dict of tensors; every rule of a paper in one line."""

    def __init__(self, state, recipe, binary, train):
        super().__init__(state, None, train=train, binary=binary)
        self.recipe = recipe

    def norm(self, name, x):
        return self.maps(super().norm(name, self.tokens(x)), x.shape[2:])

    def binary_conv(self, name, x, stride):
        weight = self.s[name + '.weight']
        if self.recipe == 'reactnet':  # RSign
            x = x + self.s[name + '.input_bias'][:, None, None]
        if self.binary:
            x, weight = binary_activation(x), binary_weight(weight)
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), weight, stride=stride)

    def activation(self, name, x):
        if self.recipe == 'bnn':
            return x.clamp(-1, 1)
        if self.recipe == 'bireal':
            return x if self.binary else x.clamp(min=0)
        a, slope, b = (self.s[f'{name}.{part}'][:, None, None]
                       for part in ('shift_in', 'slope', 'shift_out'))
        return torch.where(x > a, x - a, slope * (x - a)) + b

    def shortcut(self, name, x, stride):
        if name + '.1.weight' not in self.s:
            return x
        if stride == 2:  # a mean of what there is of every 2×2 cell
            ones = torch.ones_like(x)
            bottom, right = x.shape[2] % 2, x.shape[3] % 2
            x, ones = (F.pad(t, (0, right, 0, bottom)).unfold(2, 2, 2).unfold(3, 2, 2).sum((4, 5))
                       for t in (x, ones))
            x = x / ones
        x = torch.einsum('oc,bchw->bohw', self.s[name + '.1.weight'][:, :, 0, 0], x)
        return self.norm(name + '.2', x)

    def block(self, name, x, stride):
        s = self.shortcut(name + '.shortcut', x, stride)
        y = self.norm(name + '.norm1', self.binary_conv(name + '.conv1', x, stride))
        if self.recipe == 'bnn':
            y = self.activation(name + '.act1', y)
            y = self.norm(name + '.norm2', self.binary_conv(name + '.conv2', y, 1))
            return self.activation(name + '.act2', y + s)
        y = self.activation(name + '.act1', y + s)
        z = self.norm(name + '.norm2', self.binary_conv(name + '.conv2', y, 1))
        return self.activation(name + '.act2', z + y)

    def __call__(self, image, depths):
        x = F.conv2d(F.pad(image, (3, 3, 3, 3)), self.s['stem.0.weight'], stride=2)
        x = F.max_pool2d(self.norm('stem.1', x), 3, 2, 1)
        outputs = []
        for i, depth in enumerate(depths):
            for b in range(depth):
                x = self.block(f'stages.{i}.{b}', x, 2 if i and not b else 1)
            outputs.append(self.norm(f'output_norms.{i}', x))
        return outputs


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('binary', [True, False])
@pytest.mark.parametrize('recipe', ['reactnet', 'bireal', 'bnn'])
def test_agrees_with_the_formulas(recipe, binary, train):
    model = build(recipe=recipe, binary=binary).double().train(train)
    state = randomize(model)
    image = torch.randn(2, 3, 70, 94, dtype=torch.float64)
    theirs = PlainResNet(state, recipe, binary, train)(image, MINI['depths'])
    assert_outputs_agree(model(image), theirs)
    assert_gradients_agree(model, {name: tensor.grad for name, tensor in state.items()})
