import pytest

from bhvit_seg.errors import UserError
from bhvit_seg.training.train import train

BINARY = """
arch = dict(depths=(1, 1, 1, 1), channels=(8, 16, 32, 64), mlp_channels=(16, 32, 64, 128),
            num_heads=(1, 1, 2, 4))
model.update(
    backbone=dict(type='BHViT', arch=arch, with_cp=WITH_CP),
    decode_head=dict(
        type='BinarySegformerHead', in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3],
        channels=32, num_classes=2, norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss')))
custom_imports = dict(imports=['bhvit_seg.modules'])
"""
HOOK = "custom_hooks = [dict(type='CudaGraphHook')]"


def test_on_a_cpu_nothing_changes(tiny_config, tmp_path):
    plain, graphed = (
        train(tiny_config(BINARY.replace('WITH_CP', 'False'), extra), work_dir=tmp_path / name)
        .message_hub.get_scalar('train/loss').data[0].tolist()
        for name, extra in (('plain', ''), ('graphed', HOOK)))
    assert plain == graphed and len(plain) == 12


@pytest.mark.parametrize('model, problem', [
    (BINARY.replace('WITH_CP', 'True'), 'with_cp=True'), ('', 'not a BHViT')])
def test_what_cannot_be_captured_is_refused(model, problem, tiny_config, tmp_path):
    with pytest.raises(UserError, match=problem):
        train(tiny_config(model, HOOK), work_dir=tmp_path / 'work')
