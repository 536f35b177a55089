"""``bhvit-seg doctor``: says what is installed and what is missing."""

import argparse

DESCRIPTION = (
    'Prints the processor, the engine of packed models and the packages that each task needs, '
    'says which tasks work, and how to install what is missing for the others. Checks on this '
    'processor that the engine computes to the bit what its plain loops do, and prints its speed.')
EXAMPLES = ('bhvit-seg doctor',)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(args: argparse.Namespace) -> int:
    from bhvit_seg.compat.doctor import examine, render

    diagnosis = examine(check_engine)
    print(render(diagnosis))
    return 1 if diagnosis.problems else 0


def check_engine() -> tuple[str, list[str]]:
    from bhvit_seg.native import speed

    return speed.check_engine()
