"""Normalisation of any number of channels."""

from __future__ import annotations

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from mmseg.structures import SegDataSample

from bhvit_seg.errors import UserError
from bhvit_seg.models.data_preprocessor import MultiChannelSegDataPreProcessor

MEAN = [123.675, 116.28, 103.53]
STD = [58.395, 57.12, 57.375]


def batch(channels, sizes=((7, 5), (6, 8)), dtype=torch.float32):
    torch.manual_seed(0)
    inputs, samples = [], []
    for height, width in sizes:
        inputs.append((torch.rand(channels, height, width) * 255).to(dtype))
        sample = SegDataSample(metainfo=dict(img_path=f'{height}.png'))
        sample.gt_sem_seg = PixelData(data=torch.ones(1, height, width, dtype=torch.int64))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('bgr_to_rgb', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.uint8])
def test_three_channels_are_as_in_mmseg(training, bgr_to_rgb, dtype):
    options = dict(mean=MEAN, std=STD, bgr_to_rgb=bgr_to_rgb, size=(8, 8), pad_val=0)
    sizes = ((7, 5), (6, 8)) if training else ((6, 8), (6, 8))
    results = [kind(**options)(batch(3, sizes, dtype), training)
               for kind in (MultiChannelSegDataPreProcessor, SegDataPreProcessor)]
    assert torch.equal(results[0]['inputs'], results[1]['inputs'])
    ours, theirs = (result['data_samples'] for result in results)
    assert [s.gt_sem_seg.data.tolist() for s in ours] == [s.gt_sem_seg.data.tolist()
                                                          for s in theirs]


@pytest.mark.parametrize('channels', [1, 2, 3, 4, 5, 8])
def test_each_channel_has_its_own_mean_and_deviation(channels):
    mean = [10.0 * i for i in range(channels)]
    std = [1.0 + i for i in range(channels)]
    swap = channels >= 3
    data = batch(channels, ((6, 8), (6, 8)))
    order = [2, 1, 0, *range(3, channels)] if swap else list(range(channels))
    expected = torch.stack([
        torch.stack([(image[source] - mean[i]) / std[i] for i, source in enumerate(order)])
        for image in data['inputs']])
    result = MultiChannelSegDataPreProcessor(mean, std, bgr_to_rgb=swap)(data)['inputs']
    torch.testing.assert_close(result, expected)


def test_batch_tensor_is_taken():
    images = torch.rand(2, 4, 6, 6)
    processor = MultiChannelSegDataPreProcessor([0.0] * 4, [2.0] * 4)
    torch.testing.assert_close(processor(dict(inputs=images))['inputs'], images / 2)


def test_input_is_left_as_it_was():
    data = batch(4, ((6, 8),))
    before = data['inputs'][0].clone()
    MultiChannelSegDataPreProcessor([1.0] * 4, [2.0] * 4, bgr_to_rgb=True)(data)
    assert torch.equal(data['inputs'][0], before)


@pytest.mark.parametrize('channels', [3, 5])
def test_other_number_of_channels_names_the_image(channels):
    processor = MultiChannelSegDataPreProcessor([0.0] * 4, [1.0] * 4, size=(8, 8))
    with pytest.raises(UserError, match=rf'image 7\.png has {channels} channels.*4') as error:
        processor(batch(channels), training=True)
    assert '\n' not in str(error.value)
    with pytest.raises(UserError, match='an image has'):
        processor(dict(inputs=[torch.rand(channels, 4, 4)]))


def test_statistics_are_no_part_of_the_checkpoint():
    assert not MultiChannelSegDataPreProcessor(MEAN, STD).state_dict()


@pytest.mark.parametrize('options', [
    dict(mean=[0.0] * 3, std=[1.0] * 4), dict(mean=[], std=[]), dict(mean=[0.0], std=[0.0]),
    dict(mean=[0.0, 0.0], std=[1.0, 1.0], bgr_to_rgb=True),
    dict(mean=MEAN, std=STD, bgr_to_rgb=True, rgb_to_bgr=True)
])
def test_wrong_arguments_are_refused(options):
    with pytest.raises(UserError, match='data_preprocessor'):
        MultiChannelSegDataPreProcessor(**options)
