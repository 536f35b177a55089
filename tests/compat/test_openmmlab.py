import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from bhvit_seg.compat import openmmlab as mm


class Call:
    """Pickles to a call of a function."""

    def __init__(self, *call) -> None:
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.fixture
def allowed():
    """The maintained packages' mmengine forgets what may be loaded whenever it has loaded."""
    mm.allow_mmengine_checkpoints()


@pytest.mark.parametrize('code, printed', [
    ('import bhvit_seg.modules', ''),
    # The package itself is light.
    ('import sys, bhvit_seg, bhvit_seg.errors, bhvit_seg.fileio, bhvit_seg.compat.doctor, '
     'bhvit_seg.cli; print(sorted({"torch", "numpy", "mmengine"} & set(sys.modules)))', '[]\n')])
def test_imports_print_nothing(code, printed, repository):
    run = subprocess.run([sys.executable, '-c', code], cwd=repository, capture_output=True,
                         text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, printed, '')


def test_what_mmengine_writes_loads_as_weights_only(tmp_path, allowed):
    history = HistoryBuffer([0.5, 0.25], [1, 1])
    content = {
        'history': history, 'array': np.arange(3), 'scalar': np.float64(0.5),
        'flag': np.bool_(True), 'floats': np.ones(2, np.float32)}
    torch.save(content, tmp_path / 'content.pth')
    loaded = torch.load(tmp_path / 'content.pth', weights_only=True)
    assert loaded['history'].mean() == history.mean()
    assert loaded['history'].data[0].tolist() == [0.5, 0.25]
    assert loaded['array'].tolist() == [0, 1, 2] and loaded['scalar'] == 0.5
    # NumPy 1 and 2 name the same function differently.
    named = {entry[1] for entry in torch.serialization.get_safe_globals()
             if isinstance(entry, tuple)}
    assert {'numpy.core.multiarray.scalar', 'numpy._core.multiarray.scalar'} <= named


@pytest.mark.parametrize('call', [(os.system, 'touch ran'), (getattr, HistoryBuffer, '__init__')])
def test_code_is_neither_loaded_nor_run(call, tmp_path, monkeypatch, allowed):
    monkeypatch.chdir(tmp_path)
    torch.save({'x': Call(*call)}, 'evil.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load('evil.pth', weights_only=True)
    assert not (tmp_path / 'ran').exists()
