"""The same as ``bhvit-seg convert``, for those who look for it here."""

import sys

from bhvit_seg.cli import run_tool

main = run_tool('convert')

if __name__ == '__main__':
    sys.exit(main())
