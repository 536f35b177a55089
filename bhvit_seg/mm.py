"""The OpenMMLab stack: says what to type when it is missing, and makes it fit current torch.

``bhvit_seg.models``, ``.datasets``, ``.hooks`` and ``.loops`` import this module first. Three
things are set right here, for the maintained fork and the original packages alike:

* a missing package ends in one line that names it and the command that installs it;
* what the packages print and warn at import (optional back ends nobody here uses) stays unseen;
* training checkpoints load under torch's weights-only default, which knows nothing of the few
  types mmengine writes besides tensors.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings

from bhvit_seg.errors import UserError

INSTALL_HINT = 'pip install torch==2.13.0 && pip install "bhvit_seg[mm]"'

# In the order in which they need each other; the subpackages are those that are noisy.
STACK = ('torch', 'mmengine', 'mmcv', 'mmseg', 'mmseg.models', 'mmseg.datasets')


class StackError(UserError, ImportError):
    """A package of the stack is missing or does not fit."""


def require_mm_stack() -> None:
    """Import ``torch``, ``mmengine``, ``mmcv`` and ``mmseg``.

    Raises:
        StackError: One of them is missing or does not import; the message says what to type.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        for name in STACK:
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                raise StackError(
                    f'bhvit_seg needs {error.name} for training and testing: {INSTALL_HINT} '
                    '(`bhvit-seg doctor` tells what else is missing)') from error
            except (ImportError, AssertionError, AttributeError, OSError) as error:
                # mmseg asserts the version of mmcv; compiled ops miss symbols of another torch.
                raise StackError(
                    f'{name} is installed but does not import ({first_line(error)}); '
                    '`bhvit-seg doctor` tells what does not fit and how to mend it') from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type when it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def allow_mmengine_checkpoints() -> None:
    """Tell torch's weights-only unpickler about what mmengine's checkpoints hold.

    These are the log histories of the message hub (``HistoryBuffer``) and NumPy's arrays and
    scalars of numeric type; all of them are data. NumPy 2 renamed the module that a checkpoint
    names, so each function is allowed under the name of either version. Calling it again
    changes nothing.
    """
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    core = np._core if hasattr(np, '_core') else np.core
    functions = {
        f'numpy.{module}.multiarray.{name}': getattr(core.multiarray, name)
        for module in ('core', '_core')
        for name in ('_reconstruct', 'scalar')
    }
    numeric = {type(np.dtype(code)) for code in '?bBhHiIlLqQefd'}
    torch.serialization.add_safe_globals([
        HistoryBuffer, np.ndarray, np.dtype, *numeric,
        *((function, name) for name, function in functions.items())])


require_mm_stack()
allow_mmengine_checkpoints()
