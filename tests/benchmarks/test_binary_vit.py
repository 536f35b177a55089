"""The plain binary ViT against its formulas."""

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from plain_bhvit import PlainBHViT, assert_gradients_agree, assert_outputs_agree, randomize

import benchmarks.baselines  # noqa: F401
import bhvit_seg.models  # noqa: F401

MINI = dict(channels=16, depth=5, num_heads=2, mlp_ratio=2, pretrain_img_size=64)


def build(**cfg):
    return MODELS.build(dict(dict(type='BinaryViT', **MINI), **cfg))


class PlainViT(PlainBHViT):
    """The network once more, on a dict of tensors, for images of 16×16 patches without a rest."""

    def product(self, name, x):
        x = self.linear(name + '.linear', self.act(x + self.s[name + '.linear.input_bias']))
        x = self.norm(name + '.norm', x) - self.s[name + '.act.shift_in']
        x = torch.where(x > 0, x, self.s[name + '.act.slope'] * x)
        return x + self.s[name + '.act.shift_out']

    def attention(self, name, normed):
        batch, tokens, channels = normed.shape
        bits = []
        for word, bias in zip(('query', 'key', 'value'), self.s[name + '.bit_bias']):
            h = self.act(self.product(f'{name}.{word}', normed) + bias)
            bits.append(h.view(batch, tokens, self.num_heads, -1).transpose(1, 2))
        scores = bits[0] @ bits[1].transpose(2, 3) / (channels / self.num_heads) ** 0.5
        matrix = scores.softmax(-1)
        if self.binary:
            bias, scale = (self.s[f'{name}.quantizer.{part}'][:, None, None]
                           for part in ('bias', 'scale'))
            matrix = scale / tokens * (self.act(tokens * matrix + bias) + 1) / 2
        context = (matrix @ bits[2]).transpose(1, 2).reshape(batch, tokens, channels)
        return self.product(name + '.output', context)

    def __call__(self, image, depth):
        x = F.conv2d(image, self.s['patch_embed.projection.weight'],
                     self.s['patch_embed.projection.bias'], stride=16)
        size = x.shape[2:]
        x = F.gelu(self.norm('patch_embed.norm', self.tokens(x)))
        position = F.interpolate(self.s['patch_embed.position.weight'], size, mode='bicubic')
        x = x + self.tokens(position)
        maps = []
        for b in range(depth):
            name = f'blocks.{b}'
            x = x + self.attention(name, self.norm(name + '.norm1', x))
            hidden = self.product(name + '.fc1', self.norm(name + '.norm2', x))
            x = x + self.product(name + '.fc2', hidden)
            if b + 1 in (depth // 4, depth // 2, 3 * depth // 4, depth):
                i = len(maps)
                out = self.maps(self.norm(f'output_norms.{i}', x), size)
                maps.append(F.interpolate(out, scale_factor=(4, 2, 1, 0.5)[i], mode='bilinear'))
        return maps


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('norm', ['BN', 'LN'])
@pytest.mark.parametrize('binary', [True, False])
def test_agrees_with_the_formulas(binary, norm, train):
    model = build(binary=binary, norm_cfg=dict(type=norm)).double().train(train)
    state = randomize(model)
    image = torch.randn(2, 3, 96, 64, dtype=torch.float64)
    theirs = PlainViT(state, 2, norm, train=train, binary=binary)(image, MINI['depth'])
    assert_outputs_agree(model(image), theirs)
    assert_gradients_agree(model, {name: tensor.grad for name, tensor in state.items()}, atol=1e-9)
