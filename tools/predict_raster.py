"""The same as ``bhvit-seg predict-raster``, for those who look for it here."""

import sys

from bhvit_seg.cli import run_tool

main = run_tool('predict-raster')

if __name__ == '__main__':
    sys.exit(main())
