"""``bhvit-seg doctor``: says what is installed and what is missing."""

import argparse

DESCRIPTION = (
    'Prints the processor, the engine of packed models and the packages that each task needs, '
    'says which tasks work, and how to install what is missing for the others.')
EXAMPLES = ('bhvit-seg doctor',)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(args: argparse.Namespace) -> int:
    from bhvit_seg.compat.doctor import examine, render

    diagnosis = examine(instruction_sets)
    print(render(diagnosis))
    return 1 if diagnosis.problems else 0


def instruction_sets() -> list[str]:
    from bhvit_seg import native

    return native.instruction_sets()
