# The same three times as long: which differences stay when networks have learned more.
_base_ = './epfl_roads.py'

title = 'Roads from above, 1500 iterations: EPFL road segmentation'
iterations = 1500
