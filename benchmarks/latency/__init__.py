"""Latency of whole segmenters, side by side in one process."""
