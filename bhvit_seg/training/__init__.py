"""Training: configs, loops, hooks, optimizer groups and runs that resume."""

import bhvit_seg.compat.openmmlab  # noqa: F401  (says what to type if the stack is missing)
