"""Draws how the latent weights of trainings oscillated, side by side."""

from __future__ import annotations

import argparse

from bhvit_seg.errors import command


@command
def main(argv: list[str] | None = None) -> None:
    from benchmarks.oscillation import compare_oscillation, format_results

    parser = argparse.ArgumentParser(
        description='Reads what WeightStatisticsHook recorded in work dirs and draws the '
                    'histograms of the latent weights (weight_histograms.png) and the weights '
                    'that flipped (weight_flips.png), side by side; prints the final figures and '
                    'writes them to oscillation.json.')
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR',
                        help='such as a training without the regularization and one with it')
    parser.add_argument('--names', nargs='+', help='what to call them (default: folder names)')
    parser.add_argument('--out', default='oscillation', metavar='DIR',
                        help='folder to write to (default: oscillation)')
    args = parser.parse_args(argv)
    print(format_results(compare_oscillation(args.work_dirs, names=args.names, out=args.out)))


if __name__ == '__main__':
    main()
