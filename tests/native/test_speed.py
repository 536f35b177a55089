"""What the engine computes, counted and compared with its plain loops; no test checks a time."""

import pytest
import torch
from native.segmentors import build_segmentor
from torch.utils.flop_counter import FlopCounterMode

from bhvit_seg.errors import UserError
from bhvit_seg.native import instruction_sets, speed
from bhvit_seg.native.export import fold_segmentor


@pytest.mark.parametrize('head', ['BinarySegformerHead', 'BinaryUPerHead'])
def test_products_are_those_that_torch_counts(head):
    # one window in stages 3 and 4, where the simulation computes nothing twice
    size, model = 112, build_segmentor(head=head)
    tensors = fold_segmentor(model)
    counts = speed.count_products(tensors['architecture'].tolist(),
                                  tensors.get('head.pool_scales', ()), size, size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, size, size))
    expected = sum(map(sum, counts.values()))
    # values meet two bit planes instead of one real matrix: three products a pair instead of two
    expected -= counts['attention'][0] // 3
    # the simulation's stencil is a dense 5×5 kernel of which a cross of 9 taps is used
    expected += counts['mlp'][1] // 9 * (25 - 9)
    assert counter.get_total_flops() == 2 * expected


def test_engine_is_checked(engine):
    line, problems = speed.check_engine()
    assert not problems and ', '.join(instruction_sets()) in line and '% of the limit' in line


def test_kernels_that_differ_are_a_problem(engine, monkeypatch):
    broken = instruction_sets()[0]
    monkeypatch.setattr(engine, 'self_test', lambda isa: 'scores of X' if isa == broken else '')
    problem, = speed.check_engine()[1]
    assert broken in problem and 'scores of X' in problem and 'BHVIT_ISA=serial' in problem


def test_instruction_set_that_is_not_there_is_named(engine, monkeypatch):
    monkeypatch.setenv('BHVIT_ISA', 'sse9')
    with pytest.raises(UserError, match='BHVIT_ISA=sse9'):
        speed.check_engine()


def test_network_without_a_file_has_the_architecture_asked_for(engine):
    assert tuple(engine.Engine.random(speed.TINY, 1).architecture) == speed.TINY
    with pytest.raises(engine.Error, match='22'):
        engine.Engine.random(speed.TINY[2:], 1)
