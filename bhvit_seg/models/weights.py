"""Loading checkpoints without executing code, and checking that they fit the model."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import nn

from bhvit_seg.compat.openmmlab import allow_mmengine_checkpoints
from bhvit_seg.errors import UserError, first_line, shortened
from bhvit_seg.fileio import check_checkpoint


def load_checkpoint_safely(path: str | Path, map_location: str = 'cpu') -> dict[str, Any]:
    """Load a checkpoint with torch's weights-only unpickler: tensors and numbers, no code.

    mmengine's fork falls back to the unsafe unpickler, so call this before it gets a file.

    Raises:
        UserError: The file is missing, not a checkpoint, truncated, or holds code.
    """
    check_checkpoint(path)
    # Again: each time the fork loads a checkpoint, it resets the allowed types.
    allow_mmengine_checkpoints()
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:  # with advice to switch the safety off
        foreign = re.search(r'(?:GLOBAL|Trying to (?:load|call)\D*?) ([\w.]+)', str(error))
        if foreign:
            raise UserError(
                f'the checkpoint {path} is refused: it holds {foreign.group(1)}, which is '
                'neither tensors nor numbers and could run code; save its state dict alone with '
                'torch.save') from error
        raise UserError(f'{path} is not a checkpoint of torch, or is damaged: copy or download it '
                        'again') from error
    except Exception as error:
        # A damaged file may fail anywhere in the zip reader or the unpickler.
        raise UserError(f'{path} is not a checkpoint, or only a part of one: '
                        f'{first_line(error)}; copy or download it again') from error
    if not isinstance(checkpoint, dict):
        raise UserError(f'{path} holds a {type(checkpoint).__name__}, but a checkpoint (dict) '
                        'was expected')
    return checkpoint


def state_dict_of(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint (of mmengine, or DeiT's scripts) without DDP's prefix."""
    state_dict = checkpoint.get('state_dict', checkpoint.get('model', checkpoint))
    return {name[7:] if name.startswith('module.') else name: value
            for name, value in state_dict.items()}


def check_fit(model: nn.Module, state_dict: dict[str, torch.Tensor], name: str | Path) -> None:
    """Raise a UserError unless a state dict from ``name`` has exactly the tensors of the model."""
    expected = model.state_dict()
    problems = [f'{problem}: {shortened(names, 3)}' for problem, names in (
        ('of another shape', [
            f'{key} ({tuple(state_dict[key].shape)} instead of {tuple(own.shape)})'
            for key, own in expected.items()
            if key in state_dict and state_dict[key].shape != own.shape]),
        ('missing', [key for key in expected if key not in state_dict]),
        ('not in the model', [key for key in state_dict if key not in expected])) if names]
    if problems:
        raise UserError(
            f'the checkpoint {name} is not of this model ({"; ".join(problems)}): use the config '
            'it was trained with')


def load_weights(model: nn.Module, path: str | Path) -> dict[str, Any]:
    """Load a checkpoint into the model, strictly, and return it; UserErrors as of the two above."""
    checkpoint = load_checkpoint_safely(path)
    state_dict = state_dict_of(checkpoint)
    check_fit(model, state_dict, path)
    model.load_state_dict(state_dict)
    return checkpoint


def load_backbone(backbone: nn.Module, path: str | Path, prefix: str = 'backbone.',
                  convert: Callable[[dict], dict] = dict,
                  adapt: Callable[[dict], dict] = dict) -> None:
    """Load a file or address of a backbone, or of a model that has it under ``prefix``.

    ``convert`` renames the tensors of a file that has none under ``prefix``; ``adapt`` then changes
    tensors. Errors are those of :func:`load_weights`.
    """
    checkpoint = (CheckpointLoader.load_checkpoint(path, map_location='cpu') if '://' in str(path)
                  else load_checkpoint_safely(path))
    state = state_dict_of(checkpoint)
    own = {n[len(prefix):]: t for n, t in state.items() if n.startswith(prefix)}
    state = adapt(own or convert(state))
    check_fit(backbone, state, path)
    backbone.load_state_dict(state)
    print_log(f'{type(backbone).__name__} loaded {len(state)} tensors from {path}',
              logger='current')
