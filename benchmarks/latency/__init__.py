"""Latency of whole segmentors, with interleaved calls in one process."""
