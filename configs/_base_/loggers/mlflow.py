# In place of ../default_runtime.py.
_base_ = '../default_runtime.py'
visualizer = dict(vis_backends=[*_base_.vis_backends, dict(type='MLflowVisBackend')])
