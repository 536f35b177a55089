"""Data sets, transforms, label checks and image files.

Importing this package imports nothing else, so that images can be read without OpenMMLab's
packages; :mod:`bhvit_seg.modules` registers data sets and transforms.
"""
