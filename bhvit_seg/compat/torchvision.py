"""Gets torchvision imported beside a torch without CUDA.

Only mmpretrain needs torchvision, for its transforms, but mmsegmentation imports mmpretrain where
it is installed. The torchvision of PyPI is compiled against a torch with CUDA. Beside one without,
its compiled operators, which are for boxes, do not load, and it refuses to be imported because it
cannot describe them to torch; without the descriptions it works.
"""

from __future__ import annotations

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
