"""Published BHViT checkpoints: renaming their tensors, and adapting checkpoints to a backbone."""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bhvit_seg.errors import UserError
from bhvit_seg.fileio import write_bytes

from ..weights import load_checkpoint_safely, state_dict_of

_RPRELU = {'move1': 'shift_in', 'prelu.weight': 'slope', 'move2': 'shift_out'}
_SHIFT_BRANCHES = ('h3', 'w3', 'h5', 'w5', 'ch3', 'ch5')
_SHIFT = re.compile(rf'layerscale_({"|".join(_SHIFT_BRANCHES)})\.(alpha|move)')

# Beginnings of published names, and ours. Keys that end in a dot keep what follows them.
_STEM = {
    'position_embeddings': 'patch_embed.position.weight',
    'patch_embeddings.proj.': 'patch_embed.projection.',
    'patch_embeddings.norm.': 'patch_embed.norm.',
}
_DOWNSAMPLING = {
    'position_embeddings': 'position.weight', 'norm0.': 'norm_in.', 'proj.weight': 'conv.weight',
    'norm.': 'norm_out.', 'move': 'input_bias', 'rprelu.': 'act.',
}
_BLOCK = {
    'layernorm_before.': 'norm1.',
    'layernorm_after.': 'norm2.',
    'GC.move.bias': 'token_mixer.input_bias',
    'GC.norm.': 'token_mixer.norm.',
    'attention.attention.parm': 'token_mixer.window_balance',
    'attention.attention.token_FA.a1': 'token_mixer.pool_balance',
    'attention.attention.token_FA.norm.': 'token_mixer.token_norm.',
    'attention.attention.att_prob_quantizer.init_state': 'token_mixer.quantizer.initialized',
    'attention.attention.att_prob_quantizer.': 'token_mixer.quantizer.',
    'attention.attention.att_prob_clip': 'token_mixer.quantizer.c1',
    'attention.attention.att_prob_clip2': 'token_mixer.quantizer.c2',
    'attention.attention.att_prob_clip3': 'token_mixer.quantizer.c3',
    'attention.attention.norm_context.': 'token_mixer.context_norm.',
    'attention.attention.rprelu_context.': 'token_mixer.context_act.',
    'output.layerscale.alpha': 'mlp.layer_scale.scale',
    'output.layerscale.move': 'mlp.layer_scale.bias',
    'attention.output.layerscale.alpha': 'token_mixer.layer_scale.scale',
    'attention.output.layerscale.move': 'token_mixer.layer_scale.bias',
}
for _theirs, _linear, _norm, _act in (
        ('intermediate', 'mlp.fc1', 'mlp.norm1', 'mlp.act1'),
        ('output', 'mlp.fc2', 'mlp.norm2', 'mlp.act2'),
        ('attention.output', *(f'token_mixer.output.{p}' for p in ('linear', 'norm', 'act')))):
    _BLOCK.update({f'{_theirs}.move': f'{_linear}.input_bias',
                   f'{_theirs}.dense.weight': f'{_linear}.weight',
                   f'{_theirs}.norm.': f'{_norm}.', f'{_theirs}.rprelu.': f'{_act}.'})
for _i, _word in enumerate(('query', 'key', 'value')):
    _theirs, _own, _letter = 'attention.attention', f'token_mixer.{_word}', _word[0]
    _BLOCK.update({f'GC.cov{_i + 1}.': f'token_mixer.convs.{_i}.',
                   f'GC.act{_i + 1}.': f'token_mixer.acts.{_i}.',
                   f'{_theirs}.{_word}.weight': f'{_own}.linear.weight',
                   f'{_theirs}.move{_letter}': f'{_own}.linear.input_bias',
                   f'{_theirs}.move{_letter}2': f'token_mixer.bit_bias.{_i}',
                   f'{_theirs}.norm{_letter}.': f'{_own}.norm.',
                   f'{_theirs}.rprelu{_letter}.': f'{_own}.act.'})


def _rename(name: str, table: dict[str, str]) -> str | None:
    if name in table:
        return table[name]
    for start, ours in table.items():
        if start.endswith('.') and name.startswith(start):
            rest = name[len(start):]
            return ours + _RPRELU.get(rest, rest)
    return None


def _block_addresses(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Map ``layerA.i`` and ``layerB.i`` to our stages; a stage ends where channels change."""
    addresses, stage = {}, -1
    for part in 'AB':
        index, channels = 0, None
        while f'encoder.layer{part}.{index}.layernorm_before.weight' in state:
            width = state[f'encoder.layer{part}.{index}.layernorm_before.weight'].shape[0]
            if width != channels:
                stage, depth, channels = stage + 1, 0, width
            addresses[f'layer{part}.{index}'] = f'stages.{stage}.{depth}'
            index, depth = index + 1, depth + 1
    return addresses


def _fit_shape(name: str, tensor: Tensor) -> Tensor:
    """Drop the broadcasting dimensions of published per-channel tensors."""
    if name.endswith('position.weight') and tensor.dim() == 3:
        side = round(tensor.shape[1] ** 0.5)  # (1, tokens, channels) of a square map
        return tensor.transpose(1, 2).unflatten(2, (side, side))
    return tensor.flatten() if name.endswith(('_balance', 'input_bias')) else tensor


def convert_checkpoint(published_state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a published checkpoint to those of a BHViT of the same options.

    The classifier is dropped; the final norm becomes that of the last output map. Names may begin
    with ``module.`` (data-parallel run) and ``vit.``.

    Raises:
        UserError: The names are not those of a published BHViT.
    """
    state = {re.sub(r'^(module\.)?(vit\.)?', '', name): tensor
             for name, tensor in published_state_dict.items()}
    addresses = _block_addresses(state)
    if not addresses or 'embeddings.patch_embeddings.proj.weight' not in state:
        raise UserError(
            'this is not a published BHViT checkpoint: it lacks tensors such as '
            "'vit.embeddings.patch_embeddings.proj.weight' (its first is "
            f'{next(iter(published_state_dict), None)!r}); give a file that the authors released.')
    converted, unknown = {}, []
    shifts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if name.startswith(('classifier.', 'cls_classifier.', 'distill_classifier.')):
            continue
        ours = None
        if name.startswith('embeddings.'):
            ours = _rename(name[len('embeddings.'):], _STEM)
        elif name.startswith('layernorm.'):
            last = max(int(a.split('.')[1]) for a in addresses.values())
            ours = f'output_norms.{last}.{name[len("layernorm."):]}'
        elif match := re.fullmatch(r'encoder\.patch_embed(\d)\.(.+)', name):
            ours = _rename(match[2], _DOWNSAMPLING)
            ours = ours and f'downsamplings.{int(match[1]) - 1}.{ours}'
        elif match := re.fullmatch(r'encoder\.(layer[AB]\.\d+)\.(.+)', name):
            block, rest = addresses.get(match[1]), match[2]
            if branch := _SHIFT.fullmatch(rest):
                leaf = {'alpha': 'scale', 'move': 'bias'}[branch[2]]
                shifts.setdefault(f'{block}.shifts.{leaf}', {})[branch[1]] = tensor
                continue
            ours = _rename(rest, _BLOCK)
            ours = ours and block and f'{block}.{ours}'
        if ours is None:
            unknown.append(name)
            continue
        converted[ours] = _fit_shape(ours, tensor)
    if unknown:
        raise UserError(f'the checkpoint holds tensors that no published BHViT has, such as '
                        f'{unknown[0]!r} ({len(unknown)} in all); give a file that the authors '
                        'released.')
    for name, branches in shifts.items():
        converted[name] = torch.stack([branches[branch] for branch in _SHIFT_BRANCHES])
    for block in addresses.values():
        biases = [converted.pop(f'{block}.token_mixer.bit_bias.{i}', None) for i in range(3)]
        if biases[0] is not None:
            converted[f'{block}.token_mixer.bit_bias'] = torch.stack(biases)
    return converted


def _inflate_stem(weight: Tensor, channels: int) -> Tensor:
    """Extend RGB stem weights ``(out, 3, k, k)`` by their mean; keep the total scale."""
    kept = 3 if channels >= 3 else 0
    mean = weight.mean(1, keepdim=True).expand(-1, channels - kept, -1, -1)
    return torch.cat([weight[:, :kept], mean], 1) * (3 / channels)


def adapt_state_dict(backbone: nn.Module, state: dict[str, Tensor],
                     prefix: str = '') -> dict[str, Tensor]:
    """Adapt the tensors under ``prefix`` to ``backbone`` in place, where that is well defined.

    RGB stem weights get the backbone's number of channels, position embeddings its map sizes.
    Output norms that the backbone lacks are dropped; those that a classifier's checkpoint lacks
    keep their values.
    """
    weight = state.get(stem := f'{prefix}patch_embed.projection.weight')
    if weight is not None and weight.dim() == 4 and weight.shape[1] == 3 != backbone.in_channels:
        state[stem] = _inflate_stem(weight, backbone.in_channels)
    for name, own in backbone.state_dict().items():
        tensor = state.get(prefix + name)
        if (name.endswith('position.weight') and tensor is not None
                and tensor.shape[:2] == own.shape[:2] and tensor.shape != own.shape):
            state[prefix + name] = F.interpolate(tensor, own.shape[2:], mode='bicubic',
                                                 align_corners=False)
    norms = f'{prefix}output_norms.'
    stored = {name[len(norms):].split('.')[0] for name in state if name.startswith(norms)}
    for name in [n for n in state if n.startswith(norms)]:
        if name[len(norms):].split('.')[0] not in backbone.output_norms:
            del state[name]
    if len(stored) <= 1:
        for name, own in backbone.output_norms.state_dict().items():
            state.setdefault(norms + name, own)
    return state


def convert_file(src: str | Path, dst: str | Path) -> dict[str, Tensor]:
    """Convert a released file for ``init_cfg``, and return its tensors."""
    # The published training script stores its command line beside the weights.
    with torch.serialization.safe_globals([argparse.Namespace]):
        checkpoint = load_checkpoint_safely(src)
    converted = convert_checkpoint(state_dict_of(checkpoint))
    torch.save(dict(state_dict=converted, meta=dict()), content := io.BytesIO())
    write_bytes(dst, content.getvalue())  # torch itself does not say that a disk is full
    return converted
