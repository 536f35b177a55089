"""Configs and seeds trained, tested and compared together."""
