"""mmpretrain, for configs of classifiers: says what to type when it does not import.

Packages that use mmpretrain import this module first.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings

import bhvit_seg.compat.openmmlab  # noqa: F401
from bhvit_seg.compat.openmmlab import StackError
from bhvit_seg.errors import first_line
from bhvit_seg.extras import install_line, missing_package


def require_mmpretrain() -> None:
    """Import ``mmpretrain`` and what registers its models, data sets and metrics.

    Raises:
        StackError: It or something that it needs is missing or does not import.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        try:
            for name in ('mmpretrain.models', 'mmpretrain.datasets', 'mmpretrain.evaluation'):
                importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise StackError(
                f'configs of classifiers need mmpretrain: {missing_package(error.name)}') from error
        except (ImportError, AssertionError, AttributeError, OSError, RuntimeError) as error:
            # mmpretrain asserts versions of mmcv and mmengine.
            raise StackError(
                f'mmpretrain is installed but does not import ({first_line(error)}): '
                f'{install_line("pretrain")} installs what fits') from error


require_mmpretrain()
