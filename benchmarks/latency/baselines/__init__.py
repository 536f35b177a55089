"""The same trained network for other engines, and other networks, for the packed engine to beat.

A comparison is only as good as its baselines, so these exports are as fast as we can make them:
norms, scales and shifts are folded into weights, binary weights and all that depends only on the
image size are computed beforehand.
"""
