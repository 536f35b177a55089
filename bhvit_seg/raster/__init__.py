"""Mapping of georeferenced rasters of any size, block by block, in bounded memory.

Needs neither torch nor OpenMMLab's packages.
"""
