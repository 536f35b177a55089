"""The OpenMMLab stack: what to type when it is missing, and adaptation to current torch.

``bhvit_seg.models``, ``.datasets`` and ``.training`` import this module first. For the maintained
fork and for the original packages:

* a missing package ends in one line that names it and the command that installs it;
* output and warnings at import, and warnings about the packages' own defaults, are hidden;
* training checkpoints load under torch's weights-only default;
* the text of a config, which every checkpoint holds, is formatted once.
"""

import contextlib
import importlib
import io
import pickle
import warnings
from typing import Any, Callable

from bhvit_seg.compat.torchvision import import_torchvision
from bhvit_seg.errors import UserError, first_line
from bhvit_seg.extras import missing_package

# In the order of dependencies; the subpackages are those that print and warn.
STACK = ('torch', 'mmengine', 'mmcv', 'mmseg', 'mmseg.models', 'mmseg.datasets')
# Printed on every run, but useless to users.
POINTLESS_WARNINGS = (
    'For binary segmentation, we suggest', 'Default ``avg_non_ignore`` is False',
    'This DataLoader will create', '``build_loss`` would be deprecated', 'The draw is False',
    'The shape of value will convert')


class StackError(UserError, ImportError):
    """A package of the stack is missing or does not fit."""


def import_quietly(*names: str) -> None:
    """Import modules and hide what they print and warn."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        for name in names:
            importlib.import_module(name)
            if name == 'torch':
                import_torchvision()  # before mmseg, which imports it along with mmpretrain


def require_mm_stack() -> None:
    """Import ``torch``, ``mmengine``, ``mmcv`` and ``mmseg``; a StackError says what to type."""
    for name in STACK:
        try:
            import_quietly(name)
        except ModuleNotFoundError as error:
            raise StackError(f'{missing_package(error.name)} (`bhvit-seg doctor` tells what else '
                             'is missing)') from error
        except (ImportError, AssertionError, AttributeError, OSError) as error:
            # mmseg asserts the version of mmcv; compiled ops miss symbols of another torch.
            raise StackError(
                f'{name} is installed but does not import ({first_line(error)}); '
                '`bhvit-seg doctor` tells what does not fit and how to correct it') from error


def allow_mmengine_checkpoints() -> None:
    """Allow torch's weights-only unpickler what mmengine's checkpoints hold.

    These are log histories (``HistoryBuffer``) and NumPy's numeric arrays and scalars. NumPy 2
    renamed their module, so each function is allowed under both names.
    """
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    multiarray = (np._core if hasattr(np, '_core') else np.core).multiarray
    functions = [(getattr(multiarray, name), f'numpy.{module}.multiarray.{name}')
                 for module in ('core', '_core') for name in ('_reconstruct', 'scalar')]
    numeric = {type(np.dtype(code)) for code in '?bBhHiIlLqQefd'}
    torch.serialization.add_safe_globals([
        HistoryBuffer, np.ndarray, np.dtype, *numeric, *functions,
        (history_method, 'builtins.getattr')])


def history_method(owner: Any, name: str) -> Callable:
    """Replace ``getattr`` in checkpoints, for public methods of ``HistoryBuffer`` only."""
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name.startswith('_') or name not in vars(HistoryBuffer):
        raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {owner!r} is not allowed')
    return getattr(owner, name)


def format_configs_once() -> None:
    """Cache yapf's result: mmengine formats the config, about a second, for each checkpoint."""
    from yapf.yapflib import yapf_api

    format_code, known = yapf_api.FormatCode, {}

    def format_once(text: str, *args, **kwargs):
        if text not in known:
            known.clear()
            known[text] = format_code(text, *args, **kwargs)
        return known[text]

    yapf_api.FormatCode = format_once


require_mm_stack()
allow_mmengine_checkpoints()
format_configs_once()
for message in POINTLESS_WARNINGS:
    warnings.filterwarnings('ignore', message=message, category=UserWarning)
