"""Makes a sample set, trains a small binary model on it and draws what it predicts."""

from __future__ import annotations

import argparse
from pathlib import Path

from bhvit_seg.errors import command

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = REPOSITORY / 'configs' / 'demo' / 'bhvit-mini_segformer_1xb8-500_rs-lvf-224x224.py'


@command
def main(argv: list[str] | None = None) -> None:
    from bhvit_seg.commands.demo import run_demo

    parser = argparse.ArgumentParser(description='Trains a small binary BHViT on synthetic aerial '
                                                 'scenes and leaves a contact sheet.')
    parser.add_argument('--out', default=str(REPOSITORY / 'demo'), metavar='DIR',
                        help='folder for everything (default: demo/ in the checkout)')
    args = parser.parse_args(argv)
    run_demo(CONFIG, args.out)


if __name__ == '__main__':
    main()
