"""Training: configs, loops, hooks, optimizer groups and runs that resume."""
