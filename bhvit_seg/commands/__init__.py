"""The subcommands of ``bhvit-seg``, one file each."""
