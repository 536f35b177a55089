"""From a georeferenced raster of any size to a georeferenced map.

Windows of the raster go through a model, their scores are blended, and the map is written block by
block, so that memory does not depend on the raster's size. Needs neither torch nor OpenMMLab's
packages.
"""
