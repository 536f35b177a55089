"""Normalisation of any number of channels."""

import numpy as np
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
    return dict(
        inputs=[(torch.rand(channels, *size) * 255).to(dtype) for size in sizes],
        data_samples=[SegDataSample(
            metainfo=dict(img_path=f'{size[0]}.png'),
            gt_sem_seg=PixelData(data=torch.ones(1, *size, dtype=torch.int64))) for size in sizes])


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('bgr_to_rgb,dtype', [(True, torch.float32), (False, torch.uint8)])
def test_three_channels_are_as_in_mmseg(training, bgr_to_rgb, dtype):
    options = dict(mean=MEAN, std=STD, bgr_to_rgb=bgr_to_rgb, size=(8, 8), pad_val=0)
    data = batch(3, ((7, 5), (6, 8)) if training else ((6, 8), (6, 8)), dtype)
    before = [image.clone() for image in data['inputs']]
    ours, theirs = (
        kind(**options)(dict(data, data_samples=[s.clone() for s in data['data_samples']]),
                        training)
        for kind in (MultiChannelSegDataPreProcessor, SegDataPreProcessor))
    assert torch.equal(ours['inputs'], theirs['inputs'])
    for one, other in zip(ours['data_samples'], theirs['data_samples']):
        assert torch.equal(one.gt_sem_seg.data, other.gt_sem_seg.data)
    assert all(torch.equal(image, was) for image, was in zip(data['inputs'], before))


@pytest.mark.parametrize('channels', [1, 2, 4, 8])
def test_each_channel_has_its_own_mean_and_deviation(channels):
    mean, std = [10.0 * i for i in range(channels)], [1.0 + i for i in range(channels)]
    order = [2, 1, 0, *range(3, channels)] if channels >= 3 else list(range(channels))
    images = torch.rand(2, channels, 6, 8)  # a batch may be one tensor
    expected = torch.stack([(images[:, source] - mean[i]) / std[i]
                            for i, source in enumerate(order)], 1)
    processor = MultiChannelSegDataPreProcessor(mean, std, bgr_to_rgb=channels >= 3)
    torch.testing.assert_close(processor(dict(inputs=images))['inputs'], expected)
    assert not processor.state_dict()  # statistics are no part of the checkpoint


@pytest.mark.parametrize('size', [(45, 32), (3, 64), (64, 1)])
def test_images_are_mirrored_for_tests_alone(size):
    processor = MultiChannelSegDataPreProcessor(MEAN, STD, size=(64, 64),
                                                test_cfg=dict(size_divisor=32))
    data = batch(3, (size, size))
    plain = MultiChannelSegDataPreProcessor(MEAN, STD)(data)['inputs'].numpy()
    bottom, right = (-side % 32 for side in size)
    outputs = processor(data)
    assert np.array_equal(outputs['inputs'].numpy(), np.pad(
        plain, [(0, 0), (0, 0), (0, bottom), (0, right)], 'reflect'))
    for sample in outputs['data_samples']:
        assert sample.img_padding_size == (0, right, 0, bottom)
        assert sample.pad_shape == (size[0] + bottom, size[1] + right)
    assert torch.equal(processor(dict(inputs=data['inputs']))['inputs'], outputs['inputs'])
    trained = processor(batch(3, (size, size)), training=True)['inputs']
    assert trained.shape[2:] == (64, 64)
    assert not trained[..., size[0]:, :].any() and not trained[..., size[1]:].any()


@pytest.mark.parametrize('channels', [3, 5])
def test_other_number_of_channels_names_the_image(channels):
    processor = MultiChannelSegDataPreProcessor([0.0] * 4, [1.0] * 4, size=(8, 8))
    with pytest.raises(UserError, match=rf'image 7\.png has {channels} channels.*4') as error:
        processor(batch(channels), training=True)
    assert '\n' not in str(error.value)
    with pytest.raises(UserError, match='an image has'):
        processor(dict(inputs=[torch.rand(channels, 4, 4)]))


@pytest.mark.parametrize('options', [
    dict(mean=[0.0] * 3, std=[1.0] * 4), dict(mean=[], std=[]), dict(mean=[0.0], std=[0.0]),
    dict(mean=[0.0, 0.0], std=[1.0, 1.0], bgr_to_rgb=True),
    *(dict(mean=[0.0], std=[1.0], test_cfg=dict(size_divisor=value)) for value in (0, -32, 1.5)),
    dict(mean=[0.0], std=[1.0], test_cfg=dict(size=(64, 64), size_divisor=32)),
])
def test_wrong_arguments_are_refused(options):
    with pytest.raises(UserError, match='data_preprocessor'):
        MultiChannelSegDataPreProcessor(**options)
