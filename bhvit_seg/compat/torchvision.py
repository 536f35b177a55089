"""Import of torchvision beside a torch without CUDA.

mmsegmentation imports mmpretrain where it is installed, and that needs torchvision. Beside a torch
without CUDA, PyPI's torchvision cannot load its compiled operators (for boxes) and fails to
register their meta functions; without that registration it works.
"""

import importlib
import importlib.util
import sys
import types

DESCRIPTIONS = 'torchvision._meta_registrations'


def import_torchvision() -> None:
    """Import torchvision, if mmpretrain is installed, with or without its compiled operators."""
    if importlib.util.find_spec('mmpretrain') is None:
        return
    try:
        importlib.import_module('torchvision')
    except ImportError:
        return  # who needs it says so
    except RuntimeError as error:
        if 'operator torchvision::' not in str(error):
            raise
        for name in [name for name in sys.modules if name.split('.')[0] == 'torchvision']:
            del sys.modules[name]
        sys.modules[DESCRIPTIONS] = types.ModuleType(DESCRIPTIONS)
        importlib.import_module('torchvision')
