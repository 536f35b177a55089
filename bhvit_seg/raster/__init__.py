"""Mapping of georeferenced rasters, block by block, without torch and OpenMMLab's packages."""
