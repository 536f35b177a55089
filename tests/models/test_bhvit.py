"""The backbone against the published outputs, and against the plain oracle elsewhere."""

import json

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS
from plain_bhvit import (
    PlainBHViT,
    assert_gradients_agree,
    assert_outputs_agree,
    published_manifest,
    random_state,
)

import bhvit_seg.models  # noqa: F401
from bhvit_seg.models.backbones.bhvit import convert_checkpoint
from bhvit_seg.models.token_mixers import MSMHA
from bhvit_seg.models.tokens import MapShape

SMALL = dict(depths=(1, 2, 1, 2), channels=(8, 16, 32, 64), mlp_channels=(32, 32, 64, 256),
             num_heads=(1, 1, 2, 4))


def build(**cfg):
    return MODELS.build(dict(dict(type='BHViT', arch=SMALL, drop_path_rate=0.), **cfg))


def load_case(root, name):
    from synthetic_weights import make_image, make_state_dict
    meta = json.loads((root / f'{name}.json').read_text())
    state = {k: torch.from_numpy(v)
             for k, v in make_state_dict(meta['manifest'], meta['seed']).items()}
    image = torch.from_numpy(make_image(meta['seed'], meta['batch']))
    downsampling = 'full_precision' if meta['full_precision_downsampling'] else 'binary'
    model = build(arch=dict(depths=meta['depths'], channels=meta['hidden_size'],
                            mlp_channels=meta['intermediate_size'], num_heads=meta['num_heads']),
                  downsampling=downsampling, norm_cfg=dict(type=meta['norm']),
                  attention=meta['attention'], rectify_weights=meta['rectified_weights'],
                  output_norm=False).double()
    model.load_state_dict(convert_checkpoint(state))
    return meta, np.load(root / f'{name}.npz'), state, image, model.train(meta['train'])


@pytest.mark.data
@pytest.mark.parametrize('name', ['small_depth1_fpds', 'small_depth1_binds',
                                  'small_depth1_fpds_train'])
def test_agrees_with_the_published_implementation(parity_cases, name):
    meta, published, state, image, model = load_case(parity_cases, name)
    outputs = model(image)
    assert len(outputs) == 4
    for i, out in enumerate(outputs, 1):
        flat = out.detach().contiguous().numpy().ravel()[::meta['stride'][f'stage{i}']]
        expected = published[f'stage{i}']
        assert np.abs(flat - expected).max() / np.abs(expected).max() < 1e-9
    if not meta['train']:
        return
    loss = sum((out * torch.from_numpy(np.random.default_rng(
        [meta['seed'], 100 + i]).standard_normal(out.shape))).mean()
        for i, out in enumerate(outputs))
    loss.backward()
    assert loss.item() == pytest.approx(meta['loss'], rel=1e-9)
    # converting tensors that hold their own position in the published checkpoint tells which
    # elements of which of our parameters come from which published tensor, and in which order
    names = [n for n, t in state.items() if t.dim()]
    offsets = np.cumsum([0] + [state[n].numel() for n in names])
    where = {n: torch.arange(state[n].numel()).view(state[n].shape) + int(offsets[i])
             for i, n in enumerate(names)}
    where.update({n: t for n, t in state.items() if not t.dim()})
    gradients = torch.full((int(offsets[-1]),), float('nan'), dtype=torch.float64)
    parameters = dict(model.named_parameters())
    for name, positions in convert_checkpoint(where).items():
        if name in parameters:
            gradients[positions.flatten().long()] = parameters[name].grad.flatten()
    scale = max(g['norm'] for g in meta['grads'].values())
    assert len(meta['grads']) > 200
    for i, name in enumerate(names):
        if name in meta['grads']:
            grad, published = gradients[offsets[i]:offsets[i + 1]], meta['grads'][name]
            # shifts in front of a batch norm have a zero gradient: all digits of it are noise
            tolerance = 1e-9 * published['norm'] + 1e-15 * scale
            assert abs(grad.norm().item() - published['norm']) < tolerance, name
            ends = [*published['first'], *published['last']]
            ours = [*grad[:4].tolist(), *grad[-4:].tolist()]
            assert np.allclose(ours, ends, rtol=1e-9, atol=tolerance), name


# Options of the backbone, and what a published checkpoint lacks without the part.
VARIANTS = {
    'default': (dict(), ()),
    'LN': (dict(norm_cfg=dict(type='LN')), ()),
    'gsb': (dict(attention='gsb'), ()),
    'boolean': (dict(attention='boolean'), ()),
    'rectify': (dict(rectify_weights=True), ()),
    'binary-ds': (dict(downsampling='binary'), ()),
    'fp32': (dict(binary=False), ('att_prob',)),
    'fp32-binary-ds-LN': (dict(binary=False, downsampling='binary', norm_cfg=dict(type='LN')),
                          ('att_prob',)),
    'binary-ds-LN-gsb-rectify': (dict(downsampling='binary', norm_cfg=dict(type='LN'),
                                      attention='gsb', rectify_weights=True), ()),
    'shifts': (dict(shifts=False), ('layerscale_',)),
    'convolution': (dict(convolution='plain'), ('.cov2', '.cov3', '.GC.act2', '.GC.act3')),
    'window': (dict(attention_span='window'), ('.parm', '.a1')),
    'global': (dict(attention_span='global'), ('.parm', '.a1')),
}


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('variant', VARIANTS)
def test_agrees_with_the_plain_oracle(variant, train):
    options, absent = VARIANTS[variant]
    norm, binary = options.get('norm_cfg', {}).get('type', 'BN'), options.get('binary', True)
    # maps of 28, 14 and 7 tokens, or twice as many: four windows in the third stage
    side = 224 if 'attention_span' in options else 112
    manifest = {
        name: [shape[0], shape[0], 3, 3]
        if variant == 'convolution' and name.endswith('cov1.weight') else shape
        for name, shape in published_manifest(
            *SMALL.values(), norm, options.get('attention', 'qd'), 'downsampling' not in options,
            base=side // 4).items()
        if not any(word in name for word in absent)}
    state = {n: t.requires_grad_(train) for n, t in random_state(manifest).items()}
    model = build(output_norm=False, pretrain_img_size=side, **options).double().train(train)
    missing = model.load_state_dict(
        convert_checkpoint({n: t.detach() for n, t in state.items()}), strict=False)
    assert not missing.unexpected_keys
    assert all(variant == 'boolean' and '.quantizer.' in n for n in missing.missing_keys)
    image = torch.randn(2, 3, side, side, dtype=torch.float64)
    plain = PlainBHViT(state, SMALL['num_heads'], norm, options.get('rectify_weights', False),
                       train, binary, window=0 if variant == 'global' else 7)
    ours, theirs = model(image)[:3], plain(image, SMALL['depths'][:3])
    assert_outputs_agree(ours, theirs, backward=train)
    if train:
        expected = convert_checkpoint({n: t.grad if t.grad is not None else torch.zeros_like(t)
                                       for n, t in state.items()})
        parts = ('patch_embed', 'stages.0', 'stages.1', 'stages.2')
        assert_gradients_agree(
            model, {n: g for n, g in expected.items() if n.startswith(parts)}, atol=1e-11)


def test_batch_statistics_count_real_tokens_only():
    """A map of 10×9 tokens in windows of 7: norms of q, k and v must see 90 tokens and the four
    pooled ones of each window, nothing else."""
    mixer = MSMHA(16, 2, dict(type='BN', momentum=1.0))
    x, seen = torch.randn(2 * 90, 16), []
    mixer.query.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    mixer(x, MapShape(2, 10, 9))
    assert seen[0].shape == (2 * (90 + 4 * 4), 16)
    product = mixer.query.linear(seen[0])
    torch.testing.assert_close(mixer.query.norm.running_mean, product.mean(0))
    torch.testing.assert_close(mixer.query.norm.running_var, product.var(0))
    normed = torch.nn.functional.layer_norm(x, (16,))
    ours = {tuple(row) for row in seen[0].detach().mul(1e4).round().tolist()}
    assert all(tuple(row) in ours for row in normed.mul(1e4).round().tolist())


def test_small_windows_at_the_border_attend_like_a_map_of_their_own():
    """With one window only, the rest of the map has no say: the lower border of a 10×7 map is a
    window of 3×7 tokens that sees itself and the two pooled tokens."""
    torch.manual_seed(3)
    mixer = MSMHA(16, 2, dict(type='LN')).eval()
    with torch.no_grad():
        mixer.window_balance.fill_(1.)  # window tokens alone
        mixer.quantizer.alpha.fill_(0.2)
    x = torch.randn(70, 16)
    pooled = mixer._pool(x.view(1, 10, 7, 16))
    assert pooled.shape == (1, 2, 16)
    changed = x.clone()
    changed[:49] += 10 * torch.randn(49, 16)
    mixer._pool = lambda maps: pooled
    before, after = mixer(x, MapShape(1, 10, 7)), mixer(changed, MapShape(1, 10, 7))
    assert torch.equal(before[49:], after[49:])
    assert not torch.allclose(before[:49], after[:49])


def test_checkpointing_changes_neither_gradients_nor_statistics():
    image = torch.randn(2, 3, 64, 64)
    results = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = build(with_cp=with_cp, drop_path_rate=0.5).train()
        torch.manual_seed(1)
        sum(out.square().mean() for out in model(image)).backward()
        results.append(({n: p.grad for n, p in model.named_parameters()},
                        dict(model.named_buffers())))
    torch.testing.assert_close(results[0], results[1])


def test_frozen_stages_keep_weights_and_statistics():
    model = build(frozen_stages=2).train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    sum(out.square().mean() for out in model(torch.randn(2, 3, 64, 64))).backward()
    optimizer.step()
    moved = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    frozen = ('patch_embed.', 'stages.0.', 'stages.1.', 'downsamplings.0.', 'output_norms.0.',
              'output_norms.1.')
    assert not any(n.startswith(frozen) for n in moved)
    assert {'stages.2.0.mlp.fc1.weight', 'downsamplings.1.conv.weight',
            'output_norms.2.running_mean'} <= moved
    assert not any(p.requires_grad for p in build(frozen_stages=4).parameters())
    kept = build(norm_eval=True).train()
    assert all(layer.training != isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)
               for layer in kept.modules())


def test_drop_path_leaves_out_whole_samples():
    model = build(drop_path_rate=0.999).train()
    block = model.stages[3][1]
    assert block.drop_path_rate == pytest.approx(0.999)
    block.norm1 = block.norm2 = torch.nn.LayerNorm(64)
    x = torch.randn(4 * 4, 64)
    with torch.no_grad():
        out = block(x, MapShape(4, 2, 2))
        block.mlp.layer_scale.scale.zero_()
        block.mlp.layer_scale.bias.zero_()
        assert torch.equal(out, block(x, MapShape(4, 2, 2)))
