"""Times a training step of a config beside its full-precision twin."""

from __future__ import annotations

import argparse

from bhvit_seg.errors import command


@command
def main(argv: list[str] | None = None) -> None:
    from benchmarks.training import benchmark_training, format_results
    from bhvit_seg.commands.arguments import add_cfg_options
    from bhvit_seg.fileio import write_json

    parser = argparse.ArgumentParser(
        description='Prints the time of a training step and of an evaluation pass, and the peak '
                    'memory of training, for a config and its full-precision twin. Binarization '
                    'is simulated in training, so binary is not expected to be faster.')
    parser.add_argument('config', help='config file')
    parser.add_argument('--batch-size', type=int, help="images in a batch (default: the config's)")
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'),
                        help="height and width in pixels (default: the config's crop)")
    parser.add_argument('--iterations', type=int, default=10, help='timed steps (default: 10)')
    parser.add_argument('--threads', type=int, help="threads of torch (default: torch's choice)")
    parser.add_argument('--device', default='cpu', help='cpu or cuda (default: cpu)')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--json', metavar='FILE', help='also write the figures to this file')
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    results = benchmark_training(
        args.config, batch_size=args.batch_size, size=args.size, iterations=args.iterations,
        threads=args.threads, device=args.device, amp=args.amp, cfg_options=args.cfg_options)
    print(format_results(results))
    if args.json:
        write_json(args.json, results)


if __name__ == '__main__':
    main()
