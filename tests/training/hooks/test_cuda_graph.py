import logging
from types import SimpleNamespace

import pytest
import torch

from bhvit_seg.errors import UserError
from bhvit_seg.models.backbones.bhvit import BHViT
from bhvit_seg.training.hooks import CudaGraphHook
from bhvit_seg.training.train import train

ARCH = dict(depths=(1, 1, 1, 1), channels=(8, 16, 32, 64), mlp_channels=(16, 32, 64, 128),
            num_heads=(1, 1, 2, 4))

BINARY = f"""
arch = {ARCH}
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


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 4])
def test_frozen_stages_can_be_captured(frozen_stages, monkeypatch):
    """What torch demands of a module, and does with it three times before it records."""
    captured = []

    def capture(module, images, allow_unused_input):
        assert not module._forward_pre_hooks
        outputs = [each for each in module(*images) if each.requires_grad]
        inputs = [each for each in module.parameters() if each.requires_grad]
        if outputs:  # as torch asks; none where everything is frozen
            ones = [torch.ones_like(each) for each in outputs]
            captured.extend(torch.autograd.grad(outputs, inputs, ones,
                                                allow_unused=allow_unused_input))

    monkeypatch.setattr(torch.cuda, 'make_graphed_callables', capture)
    torch.manual_seed(0)
    backbone = BHViT(ARCH, frozen_stages=frozen_stages).train()
    runner = SimpleNamespace(model=SimpleNamespace(backbone=backbone), optim_wrapper=None, iter=0,
                             logger=logging.getLogger())
    hook = CudaGraphHook(begin=0)
    hook.before_train_iter(runner, 0)
    backbone(torch.randn(2, 3, 64, 64))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    hook.before_train_iter(runner, 1)
    assert any(each is not None and each.any() for each in captured) == (frozen_stages < 4)
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), name
