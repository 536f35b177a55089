"""Ctrl-C, SIGTERM and closed pipes, in processes that really get them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bhvit_seg.errors import NOTHING_TO_KEEP

PROGRAM = """
import os, sys, time
from bhvit_seg.errors import command, explain_interrupt

def wait():
    print('ready', flush=True)
    time.sleep(60)

@command
def main():
{body}

sys.exit(main())
"""
KEPT = "with explain_interrupt(lambda: '3 of 5 are kept'):"
BODIES = {
    'sleeping': KEPT + ' wait()',
    'outermost explanation': KEPT + "\n        with explain_interrupt(lambda: 'inner'): wait()",
    'without explanation': 'wait()',
    'while importing': 'import slow',
    'swallowed by an import': 'try: import slow\n    except BaseException: wait()',
    'turned into another error': (
        KEPT + '\n        try: wait()\n        except KeyboardInterrupt: raise RuntimeError("x")'),
    'with a forked worker': (
        'import multiprocessing\n    context = multiprocessing.get_context("fork")\n'
        '    worker = context.Process(target=time.sleep, args=(60,)); worker.start()\n'
        '    ' + KEPT + ' wait()'),
    'while threads work': (
        'import threading\n    threading.Thread(target=time.sleep, args=(1,)).start()\n'
        '    ' + KEPT + ' wait()'),
}


@pytest.fixture
def start(tmp_path, repository):
    """A function that starts a process, its modules in ``tmp_path``, in a group of its own."""

    def start_process(*arguments):
        return subprocess.Popen(
            list(map(str, arguments)), cwd=tmp_path, text=True, start_new_session=True,
            env={**os.environ, 'PYTHONPATH': f'{repository}{os.pathsep}{tmp_path}'},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return start_process


@pytest.mark.parametrize('body, signum', [
    *((body, signal.SIGINT) for body in BODIES), ('sleeping', signal.SIGTERM),
    ('while importing', signal.SIGTERM), ('with a forked worker', signal.SIGTERM)])
def test_signal_gives_one_line(body, signum, start, tmp_path):
    (tmp_path / 'slow.py').write_text("print('ready', flush=True)\nimport time\ntime.sleep(60)\n")
    (tmp_path / 'program.py').write_text(PROGRAM.format(body='    ' + BODIES[body]))
    process = start(sys.executable, tmp_path / 'program.py')
    assert process.stdout.readline() == 'ready\n'
    time.sleep(0.1)
    # as a terminal does: to all processes of the group
    os.killpg(process.pid, signum)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    word = 'interrupted' if signum == signal.SIGINT else 'terminated'
    kept = '3 of 5 are kept' if KEPT in BODIES[body] else NOTHING_TO_KEEP
    assert errors == f'{word}: {kept}\n'


@pytest.mark.parametrize('raised', ['ConnectionResetError', 'EOFError', 'RuntimeError'])
def test_worker_that_is_terminated_before_torch_says_so(raised, start, tmp_path):
    (tmp_path / 'program.py').write_text(PROGRAM.format(body=f"""
    from torch.utils.data import DataLoader
    batches = iter(DataLoader(range(100), num_workers=1))
    next(batches)
    {KEPT}
        os.system(f'kill {{batches._workers[0].pid}}')  # not this process: torch would ask who
        raise {raised}('broken')"""))
    process = start(sys.executable, tmp_path / 'program.py')
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143 and errors == 'terminated: 3 of 5 are kept\n'


@pytest.mark.parametrize('body', [
    "for _ in range(100000): print('line')",
    "print('line'); os.write(1, b'x' * 200000); print('line', flush=True)",
], ids=['print', 'write'])
def test_closed_pipe_ends_quietly(body, start, tmp_path):
    (tmp_path / 'program.py').write_text(PROGRAM.format(body='    ' + body))
    process = start('bash', '-c', f'{sys.executable} program.py | head -1; exit ${{PIPESTATUS[0]}}')
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 141 and not errors and printed.count('\n') <= 1


@pytest.mark.parametrize('redirection, status, said', [
    *((redirection, (0, 141), '') for redirection in ('| true', '2>&1 | true', '>&-', '2>&-')),
    ('> /dev/full', (2,), 'error: ')])
def test_commands_survive_any_output(redirection, status, said, start):
    process = start('bash', '-o', 'pipefail', '-c',
                    f'{sys.executable} -m bhvit_seg configs {redirection}')
    _, errors = process.communicate(timeout=60)
    assert process.returncode in status and errors.startswith(said)
    assert errors.count('\n') == bool(said)


@pytest.mark.parametrize('signum, workers_first', [
    (signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)])
def test_training_says_which_checkpoint_is_kept(signum, workers_first, tiny_config, start,
                                                tmp_path):
    config = tiny_config('train_cfg.update(max_iters=100000, val_interval=100000)',
                         'train_dataloader.update(num_workers=2)')
    process = start(sys.executable, '-m', 'bhvit_seg', 'train', config, '--work-dir', 'work')
    for line in process.stdout:
        if 'Iter(train) [     5/' in line:
            break
    if workers_first:  # as a service manager may do
        for worker in Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split():
            os.kill(int(worker), signum)
    else:
        os.killpg(process.pid, signum)
    _, errors = process.communicate(timeout=60)
    lines = [line for line in errors.splitlines() if 'Warning' not in line and line[:1] != ' ']
    assert process.returncode == 128 + signum and len(lines) == 1, errors
    name = (tmp_path / 'work' / 'last_checkpoint').read_text()
    assert os.path.basename(name) in lines[0] and '--resume' in lines[0]


@pytest.mark.parametrize('arguments', [['train', 'x'], ['doctor']])
def test_commands_are_interrupted_while_they_import(arguments, start):
    process = start(sys.executable, '-v', '-m', 'bhvit_seg', *arguments)
    for line in process.stderr:
        if 'numpy' in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    said = [line for line in errors.splitlines() if line.startswith(('interrupted', 'Traceback'))]
    assert process.returncode == 130 and said == [f'interrupted: {NOTHING_TO_KEEP}']
