"""A folded network agrees with the trained one to rounding in float64."""

import pytest
import torch
from mmseg.structures import SegDataSample

from benchmarks.latency.baselines import folded
from benchmarks.latency.baselines.folded_heads import FoldedSegmentor
from bhvit_seg.errors import UserError


def predict(model, image):
    """Logits and labels that the trained network gives in float64, as mmseg computes them.

    mmseg hands a model the channels of files, blue first; its own preprocessor normalises them in
    float32 only.
    """
    blue_first = torch.from_numpy(image)[..., [2, 1, 0, *range(3, image.shape[2])]].permute(2, 0, 1)
    prepared = model.data_preprocessor(dict(inputs=[blue_first]))['inputs']
    model.double()
    mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
    inputs = ((prepared.double() * std + mean).round() - mean) / std
    torch.testing.assert_close(inputs, prepared.double(), rtol=0, atol=1e-5)
    sample = SegDataSample(metainfo=dict(
        img_shape=image.shape[:2], ori_shape=image.shape[:2], pad_shape=image.shape[:2]))
    labels = model(inputs, [sample], mode='predict')[0].pred_sem_seg.data[0]
    return model(inputs, mode='tensor'), labels


@pytest.mark.parametrize('head', ['BinarySegformerHead', 'BinaryUPerHead'])
@pytest.mark.parametrize('downsampling', ['full_precision', 'binary'])
def test_folded_is_the_trained_network(segmentor, image, downsampling, head, monkeypatch):
    monkeypatch.setattr(folded, 'HIDDEN_VALUES', 3000)  # several chunks, the last one smaller
    model, picture = segmentor(downsampling, head), image(72, 100, 3)
    module = FoldedSegmentor(model, (72, 100))
    logits, labels = predict(model, picture)
    picture = torch.from_numpy(picture)
    assert len(labels.unique()) > 1
    torch.testing.assert_close(module.logits(picture), logits, rtol=0, atol=1e-9)
    assert torch.equal(module(picture).long(), labels)


@pytest.mark.parametrize('cfg', [
    dict(exchange=False), dict(in_channels=4), dict(align_corners=True), dict(output_norm=False),
    dict(classes=20)], ids=str)
def test_folded_keeps_what_configs_set(segmentor, image, cfg):
    model = segmentor(**cfg)
    picture = image(64, 48, cfg.get('in_channels', 3))
    module = FoldedSegmentor(model, (64, 48))
    logits, labels = predict(model, picture)
    got = module.logits(torch.from_numpy(picture))
    torch.testing.assert_close(got, logits, rtol=0, atol=1e-9)
    assert torch.equal(module(torch.from_numpy(picture)).long(), labels)


@pytest.mark.parametrize('cfg,size,message', [
    (dict(norm='LN'), (64, 64), 'LayerNorm'),
    (dict(binary=False), (64, 64), 'binary=False'),
    (dict(attention='gsb'), (64, 64), "'qd'"),
    (dict(), (64, 66), '64×66'),
    (dict(), (32, 64), '32×64'),
], ids=str)
def test_what_does_not_fold_is_refused(segmentor, cfg, size, message):
    with pytest.raises(UserError, match=message):
        FoldedSegmentor(segmentor(**cfg), size)
