"""``python -m bhvit_seg``: the same as ``bhvit-seg``."""

import sys

from bhvit_seg.cli import main

if __name__ == '__main__':
    sys.exit(main())
