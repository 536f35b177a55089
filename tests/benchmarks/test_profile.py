import json

import pytest
from native.segmentors import build_segmentor

from benchmarks.latency.profile import profile_packed
from bhvit_seg.errors import UserError
from bhvit_seg.native.export import fold_segmentor
from bhvit_seg.native.file_format import write_packed
from bhvit_seg.native.speed import count_products


@pytest.fixture(params=['BinarySegformerHead', 'BinaryUPerHead'])
def model(request):
    return build_segmentor(head=request.param)


def test_every_region_is_timed_and_counted(model, engine, tmp_path):
    packed, out = tmp_path / 'model.bhv', tmp_path / 'profile.json'
    tensors = fold_segmentor(model)
    write_packed(packed, tensors, {'channels': 3})
    regions = profile_packed(packed, (37, 50), rounds=2, out=out)
    names = {region.name for region in regions}
    counted = count_products(tensors['architecture'].tolist(),
                             tensors.get('head.pool_scales', ()), 37, 50)
    assert set(counted) <= names
    assert all(region.milliseconds > 0 for region in regions)
    assert json.loads(out.read_text())['regions'] == [vars(region) for region in regions]
    with pytest.raises(UserError, match='--rounds is 0'):
        profile_packed(packed, (37, 50), rounds=0)
