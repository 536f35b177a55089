import json

import pytest
import torch
from native.segmentors import build_segmentor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.latency.profile import count_products, profile_packed
from bhvit_seg.errors import UserError
from bhvit_seg.native.export import fold_segmentor
from bhvit_seg.native.file_format import write_packed


@pytest.fixture(params=['BinarySegformerHead', 'BinaryUPerHead'])
def model(request):
    return build_segmentor(head=request.param)


def test_products_are_those_that_torch_counts(model):
    # one window in stages 3 and 4, where the simulation computes nothing twice
    size = 112
    counts = count_products(fold_segmentor(model), size, size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, size, size))
    expected = sum(map(sum, counts.values()))
    # values meet two bit planes instead of one real matrix: three products a pair instead of two
    expected -= counts['attention'][0] // 3
    # the simulation's stencil is a dense 5×5 kernel of which a cross of 9 taps is used
    expected += counts['mlp'][1] // 9 * (25 - 9)
    assert counter.get_total_flops() == 2 * expected


def test_every_region_is_timed_and_counted(model, engine, tmp_path):
    packed, out = tmp_path / 'model.bhv', tmp_path / 'profile.json'
    tensors = fold_segmentor(model)
    write_packed(packed, tensors, {'channels': 3})
    regions = profile_packed(packed, (37, 50), rounds=2, out=out)
    names = {region.name for region in regions}
    assert set(count_products(tensors, 37, 50)) <= names
    assert all(region.milliseconds > 0 for region in regions)
    assert json.loads(out.read_text())['regions'] == [vars(region) for region in regions]
    with pytest.raises(UserError, match='--rounds is 0'):
        profile_packed(packed, (37, 50), rounds=0)
