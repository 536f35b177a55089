"""``python -m bhvit_seg`` and the script ``bhvit-seg``."""

import sys

from bhvit_seg.cli import main

if __name__ == '__main__':
    sys.exit(main())
