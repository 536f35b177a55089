"""A packed model in a program: threads at its end, forks, and copies by pickle."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from native.segmentors import picture

from bhvit_seg.errors import UserError
from bhvit_seg.native import PackedSegmentor
from bhvit_seg.native.file_format import read_packed, write_packed

needs_fork = pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system does not fork')

START = '''
import os, signal, sys, threading, time
import numpy as np
from bhvit_seg.native import PackedSegmentor
image = np.random.default_rng(0).integers(0, 256, (72, 56, 3), np.uint8)
model = PackedSegmentor(sys.argv[1], int(sys.argv[2]))
labels = model.predict(image)
def repeat():
    while True:
        function()
'''

# Threads that are in the engine when the interpreter ends; a different moment in each run.
ENDING = START + '''
function = {
    'predict': lambda: model.predict(image),
    'label': lambda: model.label(np.zeros((9, 40, 50), np.float32)),
    'load': lambda: PackedSegmentor(sys.argv[1], 1),
}[sys.argv[3]]
for _ in range(3):
    threading.Thread(target=repeat, daemon=True).start()
time.sleep(0.05 + 0.0017 * int(sys.argv[4]))
'''

# Processes that fork while threads use the object, one of which holds its lock.
FORKING = START + '''
function = lambda: model.predict(image)
for _ in range(2):
    threading.Thread(target=repeat, daemon=True).start()
for round in range(8):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        same = [np.array_equal(model.predict(image), labels) for _ in range(2)]
        grandchild = os.fork()
        if grandchild == 0:
            signal.alarm(60)
            os._exit(not np.array_equal(model.predict(image), labels))
        same.append(os.waitpid(grandchild, 0)[1] == 0)
        os._exit(not all(same))
    if os.waitpid(child, 0)[1]:
        sys.exit(f'the child of round {round} failed')
    time.sleep(0.003)
'''


# A process that forks while the threads of the object sleep.


def run(code, *arguments):
    return subprocess.run([sys.executable, '-c', code, *map(str, arguments)], capture_output=True,
                          text=True, timeout=300)


@pytest.mark.parametrize('work', ['predict', 'label', 'load'])
def test_interpreter_ends_while_daemon_threads_are_in_the_engine(work, engine, packed):
    for moment in range(3):
        process = run(ENDING, packed('mini'), 1 + moment % 2, work, moment)
        assert (process.returncode, process.stderr) == (0, ''), moment


@needs_fork
@pytest.mark.parametrize('threads', [1, 3])
def test_fork_while_threads_use_the_object(threads, engine, packed):
    process = run(FORKING, packed('mini'), threads)
    assert process.returncode == 0, process.stderr


# ------------------------------------------------------------------------------------ copies


@pytest.mark.parametrize('duplicate', [
    lambda model: pickle.loads(pickle.dumps(model)), copy.copy, copy.deepcopy],
    ids=['pickle', 'copy', 'deepcopy'])
def test_copies_predict_the_same_on_their_own(duplicate, engine, packed, monkeypatch):
    path = packed('uper', head='BinaryUPerHead', backbone=dict(window_size=4))
    monkeypatch.chdir(path.parent)
    model = PackedSegmentor(path.name, threads=np.int64(2), isa='serial')
    monkeypatch.chdir('/')
    other = duplicate(model)
    assert other is not model and other.digest == model.digest and other.meta == model.meta
    assert (other.threads, other.instruction_set) == (2, 'serial')
    assert np.array_equal(other.logits(picture((33, 47))), model.logits(picture((33, 47))))


def test_file_that_has_changed_since_is_named(engine, packed, tmp_path):
    path = tmp_path / 'road.bhv'
    path.write_bytes(packed('mini').read_bytes())
    model = PackedSegmentor(path)
    content, old = pickle.dumps(model), model.digest
    write_packed(path, read_packed(path).tensors, {'name': 'another'})
    for duplicate in (lambda: pickle.loads(content), lambda: copy.deepcopy(model)):
        with pytest.raises(UserError, match='road.bhv has changed') as error:
            duplicate()
        assert old in str(error.value)
    path.unlink()
    with pytest.raises(UserError, match='road.bhv'):
        pickle.loads(content)


def test_file_is_read_once(engine, packed):
    counters = Path('/proc/self/io')
    if not counters.is_file():
        pytest.skip('no /proc/self/io')

    def bytes_read():
        return int(counters.read_text().split('rchar:')[1].split()[0])

    before, size = bytes_read(), packed('mini').stat().st_size
    PackedSegmentor(packed('mini'))
    assert size <= bytes_read() - before < 1.5 * size
