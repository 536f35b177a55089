"""BHViT without one of its parts, against the plain oracle without it."""

from __future__ import annotations

import math

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
    published_manifest,
    random_state,
)

import bhvit_seg.models  # noqa: F401
from bhvit_seg.errors import UserError
from bhvit_seg.models.backbones.bhvit import convert_checkpoint
from bhvit_seg.models.token_mixers import MSGDC, MSMHA
from bhvit_seg.models.tokens import MapShape

SMALL = dict(depths=(1, 2, 1, 1), channels=(8, 16, 32, 64), mlp_channels=(32, 32, 64, 128),
             num_heads=(1, 2, 2, 4))


def build(**cfg):
    return MODELS.build(dict(dict(type='BHViT', arch=SMALL, drop_path_rate=0.), **cfg))


class WithoutShifts(PlainBHViT):

    def shifts(self, name, n, size):
        return 0


class WithOrdinaryConvolution(PlainBHViT):

    def msgdc(self, name, n, size):
        x = self.act(self.maps(n, size) + self.s[name + '.move.bias'])
        y = F.conv2d(F.pad(x, (1,) * 4), binary_weight(self.s[name + '.cov1.weight']),
                     self.s[name + '.cov1.bias'])
        return self.norm(name + '.norm', self.rprelu(name + '.act1', self.tokens(y)))


class WithOneScaleOfAttention(PlainBHViT):
    """The pooled tokens, and everything that is there for their sake, left out."""

    def side(self, size):
        return self.window

    def msmha(self, name, n, size, heads):
        own, (height, width), k = name + '.attention', size, self.side(size)
        batch, channels = n.shape[0], n.shape[2]
        h = self.maps(n, size).unfold(2, k, k).unfold(3, k, k).permute(0, 2, 3, 4, 5, 1)
        h = F.layer_norm(h.reshape(-1, k * k, channels), (channels,),
                         self.s[own + '.token_FA.norm.weight'],
                         self.s[own + '.token_FA.norm.bias'], 1e-5)
        qkv, bits = [], []
        for letter, word in (('q', 'query'), ('k', 'key'), ('v', 'value')):
            y = self.linear(f'{own}.{word}', self.act(h + self.s[f'{own}.move{letter}']))
            y = self.rprelu(f'{own}.rprelu{letter}', self.norm(f'{own}.norm{letter}', y) + h)
            qkv.append(y)
            y = self.act(y + self.s[f'{own}.move{letter}2'])
            bits.append(y.view(*y.shape[:2], heads, -1).transpose(1, 2))
        scores = bits[0] @ bits[1].transpose(-1, -2) / math.sqrt(channels // heads)
        context = self.quantize(own, scores.softmax(-1)) @ bits[2]
        context = self.rprelu(own + '.rprelu_context', self.norm(
            own + '.norm_context', context.transpose(1, 2).flatten(2)) + sum(qkv))
        context = context.view(batch, height // k, width // k, k, k, channels)
        y = context.permute(0, 1, 3, 2, 4, 5).reshape(batch, -1, channels)
        out = self.linear(name + '.output.dense', self.act(y + self.s[name + '.output.move']))
        out = self.rprelu(name + '.output.rprelu', self.norm(name + '.output.norm', out) + y)
        return self.scale(name + '.output.layerscale', out)


class WithAttentionOverAll(WithOneScaleOfAttention):

    def side(self, size):
        return size[0]


class WithOneBooleanMatrix(PlainBHViT):

    def quantize(self, name, a):
        return (binary_activation(a.shape[-1] * a - 1) + 1) / 2 / a.shape[-1]


ABLATIONS = {
    'shifts': (dict(shifts=False), WithoutShifts, ('layerscale_',)),
    'convolution': (dict(convolution='plain'), WithOrdinaryConvolution,
                    ('.cov2', '.cov3', '.GC.act2', '.GC.act3')),
    'window': (dict(attention_span='window'), WithOneScaleOfAttention, ('.parm', '.a1')),
    'global': (dict(attention_span='global'), WithAttentionOverAll, ('.parm', '.a1')),
    'boolean': (dict(attention='boolean'), WithOneBooleanMatrix, ('att_prob_quantizer',)),
}


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('part', ABLATIONS)
def test_agrees_with_the_oracle_that_lacks_the_part(part, train):
    options, oracle, absent = ABLATIONS[part]
    manifest = {
        name: [shape[0], shape[0], 3, 3]
        if part == 'convolution' and name.endswith('cov1.weight') else shape
        for name, shape in published_manifest(SMALL['depths'], SMALL['channels'],
                                              SMALL['mlp_channels'], SMALL['num_heads']).items()
        if not any(word in name for word in absent)}
    state = {name: tensor.requires_grad_(train)
             for name, tensor in random_state(manifest, seed=1).items()}
    model = build(output_norm=False, **options).double().train(train)
    missing = model.load_state_dict(
        convert_checkpoint({n: t.detach() for n, t in state.items()}), strict=False)
    assert not missing.unexpected_keys
    assert all(part == 'boolean' and '.quantizer.' in name for name in missing.missing_keys)
    # maps of 56, 28, 14 and 7 tokens: four windows in the third stage, one in the fourth
    image = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    theirs = oracle(state, SMALL['num_heads'], train=train)(image, SMALL['depths'])
    ours = model(image)
    assert_outputs_agree(ours, theirs, backward=train)
    if train:
        assert_gradients_agree(model, convert_checkpoint({
            n: t.grad if t.grad is not None else torch.zeros_like(t) for n, t in state.items()}),
            atol=1e-11)


@pytest.mark.parametrize('token_mixers,kinds', [
    ('hybrid', [MSGDC, MSGDC, MSMHA, MSMHA]),
    ('convolution', [MSGDC] * 4),
    ('attention', [MSMHA] * 4),
])
def test_token_mixers_of_the_stages(token_mixers, kinds):
    model = build(token_mixers=token_mixers)
    assert [[type(b.token_mixer) for b in stage] for stage in model.stages] == [
        [kind] * depth for kind, depth in zip(kinds, SMALL['depths'])]
    if token_mixers == 'attention':
        assert [stage[0].token_mixer.num_heads for stage in model.stages] == [1, 2, 2, 4]
    outputs = model.train()(torch.randn(2, 3, 70, 90))
    assert [out.shape[2:] for out in outputs] == [(18, 23), (9, 12), (5, 6), (3, 3)]
    sum(out.square().mean() for out in outputs).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize('span,size,changes', [
    ('window', (10, 17), (slice(0, 7), slice(7, 14))),
    ('global', (10, 17), (slice(0, 10), slice(0, 17))),
])
def test_how_far_a_change_reaches(span, size, changes):
    """A change of one token in the second window reaches that window, or all of the map."""
    mixer = MSMHA(16, 2, dict(type='LN'), binary=False, span=span).eval()
    x = torch.randn(1, *size, 16)
    changed = x.clone()
    changed[0, 3, 9] = torch.randn(16)
    before, after = (mixer(m.view(-1, 16), MapShape(1, *size)).view(*size, 16)
                     for m in (x, changed))
    reached = torch.zeros(size, dtype=torch.bool)
    reached[changes] = True
    assert torch.equal((before != after).any(-1), reached)


def test_defaults_are_the_whole_network():
    whole = build(token_mixers='hybrid', convolution='multi_scale', attention_span='multi_scale',
                  shifts=True, attention='qd')
    assert {n: t.shape for n, t in whole.state_dict().items()} == {
        n: t.shape for n, t in build().state_dict().items()}


@pytest.mark.parametrize('cfg,words', [
    (dict(token_mixers='pooling'), ['token_mixers', "'pooling'", "'hybrid'"]),
    (dict(convolution='dilated'), ['convolution', "'dilated'", "'plain'"]),
    (dict(attention_span='local'), ['attention_span', "'local'", "'window'"]),
    (dict(shifts='none'), ['shifts', "'none'", 'False']),
    (dict(attention='sign'), ['attention', "'sign'", "'boolean'"]),
])
def test_wrong_switches_are_named(cfg, words):
    with pytest.raises(UserError) as caught:
        build(**cfg)
    assert all(word in str(caught.value) for word in words)
