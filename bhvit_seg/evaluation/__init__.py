"""Scores of predictions, and what a network costs to run."""
