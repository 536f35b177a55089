"""Scores of predictions, and the computational cost of networks."""
