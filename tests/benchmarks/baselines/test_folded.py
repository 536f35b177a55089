"""A folded network agrees with the trained one to rounding in float64."""

import pytest
import torch
import torch.nn.functional as F
from native.segmentors import simulated_logits

from benchmarks.latency.baselines import folded
from benchmarks.latency.baselines.folded_heads import FoldedSegmentor
from bhvit_seg.errors import UserError


@pytest.mark.parametrize('cfg', [
    *(dict(downsampling=downsampling, head=head) for downsampling in ('full_precision', 'binary')
      for head in ('BinarySegformerHead', 'BinaryUPerHead')),
    dict(exchange=False), dict(in_channels=4), dict(align_corners=True), dict(output_norm=False),
    dict(classes=20)], ids=str)
def test_folded_is_the_trained_network(segmentor, image, cfg, monkeypatch):
    monkeypatch.setattr(folded, 'HIDDEN_VALUES', 3000)  # several chunks, the last one smaller
    model, picture = segmentor(**cfg), image(72, 100, cfg.get('in_channels', 3))
    module, pixels = FoldedSegmentor(model, (72, 100)), torch.from_numpy(picture)
    logits = torch.from_numpy(simulated_logits(model, picture))[None]
    assert len(module(pixels).unique()) > 1
    torch.testing.assert_close(module.logits(pixels), logits, rtol=0, atol=1e-9)
    upsampled = F.interpolate(logits, (72, 100), mode='bilinear', align_corners=model.align_corners)
    assert torch.equal(module(pixels).long(), upsampled.argmax(1)[0])


@pytest.mark.parametrize('cfg,size,message', [
    (dict(norm='LN'), (64, 64), 'LayerNorm'), (dict(binary=False), (64, 64), 'binary=False'),
    (dict(attention='gsb'), (64, 64), "'qd'"), (dict(), (64, 66), '64×66')], ids=str)
def test_what_does_not_fold_is_refused(segmentor, cfg, size, message):
    with pytest.raises(UserError, match=message):
        FoldedSegmentor(segmentor(**cfg), size)
