"""Shows where the time of a packed model goes: ``tools/profile_packed.py MODEL.bhv``."""

from __future__ import annotations

import argparse
import sys

from bhvit_seg.errors import command


@command
def main(argv: list[str] | None = None) -> int:
    from benchmarks.latency.profile import profile_packed

    parser = argparse.ArgumentParser(
        description='Times each kind of layer of a packed model and compares it with what the '
                    'processor does at best.')
    parser.add_argument('packed', metavar='MODEL.bhv', help='packed model')
    parser.add_argument('--size', type=int, nargs=2, default=(512, 512), metavar=('H', 'W'),
                        help='height and width of the image in pixels (default: 512 512)')
    parser.add_argument('--threads', type=int, default=1, metavar='N', help='default: 1')
    parser.add_argument('--isa', help='instruction set (default: the best)')
    parser.add_argument('--rounds', type=int, default=20, metavar='N',
                        help='times are the least of so many rounds (default: 20)')
    parser.add_argument('--out', metavar='JSON', help='also write the table to this file')
    args = parser.parse_args(argv)
    profile_packed(args.packed, tuple(args.size), args.threads, args.isa, args.rounds, args.out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
