"""``python -m bhvit_seg`` and the script ``bhvit-seg``."""

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback before and after the command

from bhvit_seg.cli import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main())
