"""``python -m bhvit_seg`` and the script ``bhvit-seg``."""

import os
import signal
import sys


def leave(signum, frame) -> None:
    """End without a traceback: nothing was begun, or all is done."""
    os.write(2, b'interrupted\n')
    os._exit(128 + signum)


# Until the command has its own handler, and after it.
signal.signal(signal.SIGINT, leave)

from bhvit_seg.cli import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main())
