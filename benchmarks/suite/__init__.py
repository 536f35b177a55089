"""Trains and tests a list of configs with several seeds, and compares them in one table."""
