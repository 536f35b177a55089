"""Fixtures of the tests of models."""

import os
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope


@pytest.fixture(scope='session')
def parity_cases() -> Path:
    """The folder of the published implementation's outputs; tests that ask for it are ``data``."""
    root = Path(os.environ.get('BHVIT_REFERENCE')
                or Path(__file__).resolve().parents[3] / 'shared' / 'reference')
    if not root.is_dir():
        pytest.skip(f'no parity cases at {root}: set BHVIT_REFERENCE to the folder that holds them')
    sys.path.insert(0, str(root))
    yield root
    sys.path.remove(str(root))


@pytest.fixture(autouse=True)
def fixed_start():
    """A fixed seed, and the scope that a runner of an earlier test may have left."""
    init_default_scope('mmseg')
    torch.manual_seed(0)
