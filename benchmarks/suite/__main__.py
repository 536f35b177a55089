"""Trains, tests and compares the configs of a suite: ``python -m benchmarks.suite SUITE``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.suite.plots import plot_costs, plot_scores
from benchmarks.suite.report import collect, count_costs, markdown
from benchmarks.suite.runs import RunFailed, carry_out, lock, runs_of
from benchmarks.suite.suite import Suite, load_suite
from bhvit_seg.errors import UserError, command
from bhvit_seg.fileio import write_json, write_text


def run_suite(suite: Suite, work_dir: Path, only: Sequence[str] | None = None,
              say: Callable[[str], None] = print) -> dict[str, Any]:
    """Train and test the runs of a suite that are not done, and write its table and plots.

    A run that fails is reported while the others continue. The table is written after each run.

    Args:
        suite: The suite.
        work_dir: Where runs and reports go.
        only: Names of the rows to train and test. Defaults to all.
        say: Called with each line of progress.

    Returns:
        The content of ``results.json``.

    Raises:
        UserError: Another process works on the same suite.
    """
    runs = runs_of(suite, work_dir)
    chosen = [run for run in runs if only is None or run.row.name in only]
    failures: dict[str, str] = {}
    costs: dict[str, dict[str, Any]] = {}
    with lock(work_dir):
        report = write_report(suite, work_dir, costs, failures)
        for number, run in enumerate(chosen, 1):
            say(f'[{number}/{len(chosen)}] {run.name}: {run.state()}')
            try:
                carry_out(run, suite.data_root)
            except (RunFailed, UserError) as error:
                failures[run.name] = str(error)
                say(f'{run.name} failed: {error}')
            report = write_report(suite, work_dir, costs, failures)
    if costs:
        plot_scores(report, work_dir / 'scores.png')
        plot_costs(report, work_dir / 'costs.png')
    return report


def write_report(suite: Suite, work_dir: Path, costs: dict[str, dict[str, Any]],
                 failures: dict[str, str]) -> dict[str, Any]:
    """Write the table of all finished runs, also of seeds of earlier calls."""
    for row in suite.rows:
        found = (re.fullmatch(r'seed_(\d+)', path.stem)
                 for path in (work_dir / row.name).glob('seed_*.py'))
        row.seeds = (*row.seeds, *sorted({int(match[1]) for match in found if match}
                                         - {*row.seeds}))
    runs = runs_of(suite, work_dir)
    for run in runs:
        if run.row.name not in costs and run.scores() is not None:
            costs[run.row.name] = count_costs(run, suite.size)
    report = collect(suite, runs, costs, failures)
    write_text(work_dir / 'results.md', markdown(report))
    write_json(work_dir / 'results.json', report)
    return report


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.suite',
        description='Trains and tests each config of a suite with each of its seeds, and writes '
                    'results.md, results.json, scores.png and costs.png. The same command resumes '
                    'a suite that was interrupted.',
        epilog='The status is 1 if a run failed; the others are carried out all the same.')
    parser.add_argument('suite', help='suite file, such as configs/suites/epfl_roads.py')
    parser.add_argument('--data-root', metavar='DIR', help='folder of the data')
    parser.add_argument('--work-dir', metavar='DIR', type=Path,
                        help='folder of runs and reports (default: work_dirs/suites/<suite name>)')
    parser.add_argument('--only', nargs='+', metavar='ROW', help='train and test only these rows')
    parser.add_argument('--seeds', type=int, nargs='+', metavar='N',
                        help="train and test with these seeds (default: the suite's)")
    parser.add_argument('--dry-run', action='store_true',
                        help='print how far each run is, and do nothing')
    args = parser.parse_args(argv)
    suite = load_suite(args.suite, args.data_root, args.seeds)
    names = [row.name for row in suite.rows]
    for name in args.only or ():
        if name not in names:
            raise UserError(f'--only names {name!r}: expected rows of {suite.path}, which are '
                            f'{", ".join(names)}')
    work_dir = args.work_dir or Path('work_dirs') / 'suites' / suite.path.stem
    if args.dry_run:
        for run in runs_of(suite, work_dir):
            if args.only is None or run.row.name in args.only:
                print(f'{run.name}: {run.state()}')
        return 0
    report = run_suite(suite, work_dir, args.only,
                       lambda line: print(line, file=sys.stderr, flush=True))
    print(markdown(report), end='')
    return 1 if report['failures'] else 0


if __name__ == '__main__':
    sys.exit(main())
