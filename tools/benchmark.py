"""Trains, tests and compares the configs of a suite: ``tools/benchmark.py configs/suites/...``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bhvit_seg.errors import command


@command
def main(argv: list[str] | None = None) -> int:
    from rich.console import Console

    from benchmarks.suite.benchmark import benchmark_suite
    from benchmarks.suite.report import markdown

    parser = argparse.ArgumentParser(
        description='Trains and tests each config of a suite with each of its seeds, and writes '
                    'results.md, results.csv, runs.csv, results.json and pictures. What is done '
                    'is not done again: the same command resumes a suite that was interrupted.',
        epilog='The status is 1 if a run failed; the others are carried out all the same.')
    parser.add_argument('suite', help='suite file, such as configs/suites/epfl_roads.py')
    parser.add_argument('--data-root', metavar='DIR', help='folder of the data')
    parser.add_argument('--work-dir', metavar='DIR',
                        help='folder of runs and reports (default: work_dirs/suites/<suite name>)')
    parser.add_argument('--only', nargs='+', metavar='ROW', help='train and test only these rows')
    parser.add_argument('--seeds', type=int, nargs='+', metavar='N',
                        help="train and test with these seeds (default: the suite's, which are "
                             'in the tables anyway)')
    parser.add_argument('--threads', type=int, default=1, metavar='N',
                        help='threads when images are timed (default: 1)')
    parser.add_argument('--dry-run', action='store_true',
                        help='say how far each run is, and do nothing')
    args = parser.parse_args(argv)
    progress = Console(stderr=True)
    report = benchmark_suite(
        args.suite, Path(__file__).resolve().parent, work_dir=args.work_dir,
        data_root=args.data_root, only=args.only, seeds=args.seeds, threads=args.threads,
        dry_run=args.dry_run,
        say=print if args.dry_run else
        lambda line: progress.print(line, highlight=False, markup=False, soft_wrap=True))
    if report is None:
        return 0
    print(markdown(report), end='')
    return 1 if report['failures'] else 0


if __name__ == '__main__':
    sys.exit(main())
