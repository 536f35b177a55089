_base_ = './bhvit-small_upernet_1xb8-20k_rs-lvf-448x448.py'

model = dict(backbone=dict(arch='tiny'))
