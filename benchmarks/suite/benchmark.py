"""Trains and tests a list of configs and makes tables of them: what ``tools/benchmark.py`` does."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.suite.costs import measure_costs
from benchmarks.suite.pictures import write_pictures
from benchmarks.suite.plots import write_plots
from benchmarks.suite.report import collect, write_report
from benchmarks.suite.runs import Run, RunFailed, carry_out, lock, runs_of
from benchmarks.suite.suite import Row, Suite, load_suite
from bhvit_seg.errors import UserError, find_user_error, first_line


def choose_rows(suite: Suite, names: Sequence[str] | None) -> list[Row]:
    """Return the rows of these names, or all.

    Raises:
        UserError: There is no row of a name.
    """
    known = [row.name for row in suite.rows]
    for name in names or ():
        if name not in known:
            raise UserError(f'--only names {name!r}, which is no row of {suite.path}: known are '
                            f'{", ".join(known)}')
    return [row for row in suite.rows if names is None or row.name in names]


def add_seeds_done(suite: Suite, work_dir: Path) -> None:
    """Give each row the seeds, too, that it was once trained with beyond the suite's."""
    for row in suite.rows:
        found = (re.fullmatch(r'seed_(\d+)', path.stem)
                 for path in (work_dir / row.name).glob('seed_*.py'))
        seeds = {int(match[1]) for match in found if match}
        row.seeds = (*row.seeds, *sorted(seeds - set(row.seeds)))


def benchmark_suite(suite_file: str | Path,
                    tools: str | Path,
                    work_dir: str | Path | None = None,
                    data_root: str | Path | None = None,
                    only: Sequence[str] | None = None,
                    seeds: Sequence[int] | None = None,
                    threads: int = 1,
                    dry_run: bool = False,
                    say: Callable[[str], None] = print) -> dict[str, Any] | None:
    """Train and test what a suite lists, and write its tables and pictures.

    What is done is not done again, and a run that fails is reported while the others go on. The
    report is written anew after each run, of all rows that have results.

    Args:
        suite_file: The suite; :mod:`benchmarks.suite.suite` says what it is.
        tools: The folder of ``train.py`` and ``test.py``.
        work_dir: Where runs and reports go. Defaults to ``work_dirs/suites/<name>``.
        data_root: The folder of the data. Defaults to the suite's, then to each config's.
        only: Rows to train and test. Defaults to all.
        seeds: Seeds to train and test. Defaults to the suite's, which are in the report anyway.
        threads: Threads that timed models may use.
        dry_run: Only say what would be done.
        say: What is called with a line of progress.

    Returns:
        What ``results.json`` holds; None of a dry run.

    Raises:
        UserError: Something given is wrong.
    """
    if not 1 <= threads <= (os.cpu_count() or 1):
        raise UserError(f'--threads is {threads}, but this machine has {os.cpu_count()} cores: '
                        'give a number from 1 to that')
    suite = load_suite(suite_file, data_root, seeds)
    folder = Path(work_dir or Path('work_dirs') / 'suites' / suite.path.stem)
    rows = choose_rows(suite, only)
    chosen = [run for run in runs_of(suite, folder)
              if run.row in rows and (seeds is None or run.seed in seeds)]
    if dry_run:
        for run in chosen:
            say(f'{run.name}: {run.state()}')
        return None
    add_seeds_done(suite, folder)
    runs = runs_of(suite, folder)
    failures = {run.name: run.obstacle for run in runs if run.obstacle}
    costs: dict[str, dict[str, Any]] = {}
    with lock(folder):
        for number, run in enumerate(chosen, 1):
            say(f'[{number}/{len(chosen)}] {run.name}: {run.state()}')
            _attempt(run, Path(tools), failures, say)
            report = _write(suite, runs, costs, failures, folder, threads, say)
        _draw(suite, runs, folder, say)
    return report


def _attempt(run: Run, tools: Path, failures: dict[str, str], say: Callable[[str], None]) -> None:
    """Carry a run out; keep a sentence if it fails."""
    try:
        carry_out(run, tools, say)
    except (RunFailed, UserError) as error:
        failures[run.name] = str(error)
        say(f'{run.name} failed: {error}')


def _draw(suite: Suite, runs: Sequence[Run], folder: Path, say: Callable[[str], None]) -> None:
    """Draw what the networks make of some images."""
    try:
        write_pictures(suite.title, runs, folder)
    except Exception as error:
        # Tables are there by now, and worth more.
        if find_user_error(error) is None:
            traceback.print_exc()
        say(f'no pictures of images: {first_line(error)}')


def _write(suite: Suite, runs: Sequence[Run], costs: dict[str, dict[str, Any]],
           failures: dict[str, str], folder: Path, threads: int,
           say: Callable[[str], None]) -> dict[str, Any]:
    """Measure the costs of rows that have a result, and write tables and pictures."""
    for run in runs:
        name = run.row.name
        if name in costs or name in failures or run.scores is None:
            continue
        try:
            costs[name] = measure_costs(run, suite.size, threads, say)
        except Exception as error:
            # One model that cannot be measured must not cost the scores of all.
            if find_user_error(error) is None:
                traceback.print_exc()
            failures[name] = f'its costs are missing: {first_line(error)}'
            say(f'{name}: {failures[name]}')
    report = collect(suite, runs, costs, failures)
    write_report(report, folder)
    try:
        write_plots(report, runs, folder)
    except ImportError:
        say('no plots: matplotlib is not installed (pip install "bhvit_seg[benchmark]")')
    except Exception as error:
        # Trainings that are still to come are worth more.
        traceback.print_exc()
        say(f'no plots: {first_line(error)}')
    return report
