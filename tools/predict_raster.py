"""Maps rasters of any size: ``python tools/predict_raster.py mosaic.tif map.tif --packed ...``."""

from __future__ import annotations

import argparse
import sys

from bhvit_seg.commands.predict_raster import DESCRIPTION, add_arguments, run
from bhvit_seg.errors import command


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=DESCRIPTION)
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
