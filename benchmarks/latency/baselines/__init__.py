"""The same trained network for other engines: what the packed engine is compared with.

A comparison is worth what its denominator is worth, so these exports are as good as we can make
them: norms, scales and shifts folded into weights, binary weights computed once, what depends on
the image's size alone computed beforehand. Nothing here is imported unless latency is measured.
"""
