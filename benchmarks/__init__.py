"""Benchmarks: latency, training speed, raster mapping and suites of trainings."""
