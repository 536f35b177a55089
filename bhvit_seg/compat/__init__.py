"""Adaptation to the installed packages."""
