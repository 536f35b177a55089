# The same three times as long: which parts are worth more when networks have learned more.
_base_ = './ablation.py'

title = 'The parts of BHViT-Tiny, 1500 iterations, on EPFL road segmentation'
iterations = 1500
