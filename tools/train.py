"""The same as ``bhvit-seg train``, for those who look for it here."""

import sys

from bhvit_seg.cli import run_tool

main = run_tool('train')

if __name__ == '__main__':
    sys.exit(main())
