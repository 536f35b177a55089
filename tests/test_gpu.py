"""Training on a GPU: mixed precision, one process of nccl with SyncBN, and the CPU's numbers."""

import os
import subprocess
import sys

import pytest
import torch

pytestmark = [pytest.mark.gpu,
              pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')]
DEVICE = 'cuda'
ARCH = dict(depths=(1, 1, 1, 1), channels=(32, 64, 128, 256), mlp_channels=(64, 128, 256, 512),
            num_heads=(1, 1, 2, 4))
BINARY = """
arch = dict(depths=(1, 1, 1, 1), channels=(32, 64, 128, 256), mlp_channels=(64, 128, 256, 512),
            num_heads=(1, 1, 2, 4))
norm_cfg = dict(type='SyncBN')
model.update(
    backbone=dict(type='BHViT', arch=arch, downsampling='binary', norm_cfg=norm_cfg),
    decode_head=dict(
        type='BinarySegformerHead', in_channels=[32, 64, 128, 256], in_index=[0, 1, 2, 3],
        channels=32, num_classes=2, norm_cfg=norm_cfg, loss_decode=dict(type='CrossEntropyLoss')))
custom_imports = dict(imports=['bhvit_seg.modules'])
"""


def test_outputs_and_gradients_are_those_of_the_cpu(monkeypatch):
    from mmseg.registry import MODELS
    from native.segmentors import randomize

    import bhvit_seg.models  # noqa: F401

    # its batch norm may work in less than float64
    monkeypatch.setattr(torch.backends.cudnn, 'enabled', False)
    torch.manual_seed(0)
    backbone = MODELS.build(dict(type='BHViT', arch=ARCH, drop_path_rate=0.)).double()
    randomize(backbone)
    image = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    found = []
    for device in ('cpu', DEVICE):
        backbone.to(device).train().zero_grad()
        outputs = backbone(image.to(device))
        sum((output ** 2).mean() for output in outputs).backward()
        found.append([[output.detach().cpu() for output in outputs],
                      [parameter.grad.clone().cpu() for parameter in backbone.parameters()
                       if parameter.grad is not None]])
    assert len(found[0][1]) > 50
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


def test_mixed_precision_trains_resumes_and_predicts(tiny_config, tiny_data, tmp_path,
                                                     monkeypatch):
    from bhvit_seg.inference.torch_predictor import TorchPredictor
    from bhvit_seg.training.train import train

    config = tiny_config(BINARY.replace('SyncBN', 'BN'))
    train(config, work_dir=tmp_path / 'work', amp=DEVICE == 'cuda',
          cfg_options={'train_cfg.max_iters': 4})
    runner = train(config, work_dir=tmp_path / 'work', amp=DEVICE == 'cuda', resume=True)
    losses, _ = runner.message_hub.get_scalar('train/loss').data
    assert runner.iter == 12 and len(losses) == 12 and torch.isfinite(torch.tensor(losses)).all()
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)  # rounding turns bits
    images = sorted((tiny_data / 'images' / 'val').iterdir())
    one, other = ([TorchPredictor(config, tmp_path / 'work' / 'iter_12.pth', device)(image)
                   for image in images] for device in (DEVICE, 'cpu'))
    assert all((a == b).mean() > 0.98 for a, b in zip(one, other))


@pytest.mark.parametrize('amp', [False, True])
def test_nccl_and_synchronized_norms(amp, tiny_config, repository, tmp_path):
    options = ['--amp'] if amp else []
    run = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=1',
         'tools/train.py', str(tiny_config(BINARY)), '--work-dir', str(tmp_path / 'work'),
         '--launcher', 'pytorch', *options], cwd=repository, capture_output=True, text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(
            filter(None, [str(repository), os.environ.get('PYTHONPATH', '')]))})
    assert run.returncode == 0, run.stderr[-3000:]
    assert (tmp_path / 'work' / 'iter_12.pth').exists()


@pytest.mark.parametrize('frozen_stages', [-1, 2])
def test_a_cuda_graph_trains_as_without(frozen_stages, tiny_config, tmp_path):
    from bhvit_seg.training.train import train

    plain, graphed = (
        train(tiny_config(BINARY.replace('SyncBN', 'BN'), extra, "model['backbone']"
                          f'.update(frozen_stages={frozen_stages})'), work_dir=tmp_path / name)
        for name, extra in (('plain', ''),
                            ('graphed', "custom_hooks = [dict(type='CudaGraphHook')]")))
    losses = [runner.message_hub.get_scalar('train/loss').data[0] for runner in (plain, graphed)]
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=1e-2, atol=1e-3)
