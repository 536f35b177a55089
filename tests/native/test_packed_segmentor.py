"""The Python face of the engine: what it takes, what it gives, what it refuses."""

import os
import sys

import numpy as np
import pytest
from native.segmentors import picture

import bhvit_seg.native
from bhvit_seg.errors import UserError
from bhvit_seg.native import PackedSegmentor, instruction_sets, usable_cores

MODELS = {
    'mini': {},
    'binary-ds': dict(backbone=dict(downsampling='binary'), classes=150),
    'four': dict(in_channels=4, align_corners=True),
}
MIRRORED = dict(preprocessor=dict(test_cfg=dict(size_divisor=32)))


@pytest.mark.parametrize('name', MODELS)
def test_labels_of_given_logits_are_those_of_the_image(name, engine, packed):
    image = picture((92, 136), MODELS[name].get('in_channels', 3))
    for isa in instruction_sets():
        segmentor = PackedSegmentor(packed(name, **MODELS[name]), threads=2, isa=isa)
        np.testing.assert_array_equal(segmentor.label(segmentor.logits(image)),
                                      segmentor.predict(image))


@pytest.mark.parametrize('logits, words', [
    (np.zeros((3, 4), np.float32), '(3, 4)'),
    (np.zeros((2, 0, 4), np.float32), '(2, 0, 4)'),
    (np.zeros((300, 2, 2), np.float32), '(300, 2, 2)'),
    (np.broadcast_to(np.float32(0), (1, 2**14, 2**14 + 1)), '65536x65540'),
    ('scores', 'str'),
    (np.full((2, 3, 4), 'a'), '<U1'),
    (np.where(np.arange(24) == 17, np.nan, 0.5).reshape(2, 3, 4), 'NaN'),
], ids=str)
def test_logits_that_do_not_suit_are_named(logits, words, engine, packed):
    with pytest.raises(UserError) as error:
        PackedSegmentor(packed('mini')).label(logits)
    assert words in str(error.value) and '\n' not in str(error.value)


def test_batch_is_its_images_one_by_one(engine, packed):
    segmentor = PackedSegmentor(packed('mini'))
    batch = np.stack([picture((40, 56), seed=seed) for seed in range(3)])
    labels, logits = segmentor.predict(batch), segmentor.logits(batch)
    assert labels.shape == (3, 40, 56) and logits.shape == (3, 5, 10, 14)
    for image, one, scores in zip(batch, labels, logits):
        assert np.array_equal(segmentor.predict(image), one)
        assert np.array_equal(segmentor.logits(image), scores)
    assert segmentor.predict(batch[:0]).shape == (0, 40, 56)


def test_any_layout_dtype_and_size_after_any_other(engine, packed):
    segmentor, image = PackedSegmentor(packed('mini')), picture((60, 80))
    expected = segmentor.logits(image)
    for dtype in (np.float32, np.float64, np.float16, '>f4'):
        assert np.array_equal(segmentor.logits(image.astype(dtype)), expected)
    for view in (image[::-1, :, ::-1], image[3:-5, 2:-2], image.swapaxes(0, 1)):
        assert np.array_equal(segmentor.predict(view), segmentor.predict(view.copy()))
    first = {}
    for size in [(64, 64), (37, 50), (128, 32), (64, 64), (4, 4), (64, 64)]:
        labels = segmentor.predict(picture(size))
        assert np.array_equal(first.setdefault(size, labels), labels)


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
@pytest.mark.parametrize('size', [(37, 50), (64, 96), (33, 128), (4, 7)])
def test_images_are_mirrored_up_to_multiples_of_the_divisor(size, dtype, engine, packed):
    image = picture(size).astype(dtype)
    larger = np.pad(image, [*((0, -side % 32) for side in size), (0, 0)], 'reflect')
    plain, mirrored = (PackedSegmentor(path, threads=2) for path in (
        packed('mini'), packed('mirrored', **MIRRORED)))
    assert np.array_equal(mirrored.predict(image), plain.predict(larger)[:size[0], :size[1]])
    rows, columns = (-(-side // 4) for side in size)
    assert np.array_equal(mirrored.logits(image), plain.logits(larger)[:, :rows, :columns])
    assert sum(seconds for _, seconds in mirrored.profile(image)) > 0


def test_attributes(engine, packed):
    segmentor = PackedSegmentor(packed('mini'), threads=2, isa='serial')
    assert segmentor.meta['name'] == 'mini'
    assert segmentor.threads == 2 and segmentor.instruction_set == 'serial'
    assert 'mini' in repr(segmentor) and 'serial' in repr(segmentor)
    assert PackedSegmentor(packed('mini')).threads == usable_cores()
    assert instruction_sets()[-1] == 'serial'
    assert PackedSegmentor(packed('mini')).instruction_set == (
        os.environ.get('BHVIT_ISA') or instruction_sets()[0])


@pytest.mark.parametrize('image, words', [
    (np.zeros((32, 32, 4), np.uint8), '4 channels'),
    (np.zeros((3, 32, 32), np.uint8), '32 channels'),
    (np.zeros((1, 1, 32, 32, 3), np.uint8), '(1, 1, 32, 32, 3)'),
    (np.zeros((32, 32, 3), np.int64), 'int64'),
    (np.zeros((3, 32, 3), np.uint8), '3×32 pixels'),
    ([[[0, 0, 0]]], 'list'),
])
def test_images_that_do_not_suit_are_named(image, words, engine, packed):
    segmentor = PackedSegmentor(packed('mini'))
    for method in (segmentor.predict, segmentor.logits, segmentor.profile):
        with pytest.raises(UserError) as error:
            method(image)
        assert words in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('value, shown', [
    (np.nan, 'nan'), (np.inf, 'inf'), (-np.inf, '-inf'), (-3.4e38, '-3.39'), (9.97e36, '9.96'),
    (1e300, 'inf')])
@pytest.mark.parametrize('name, shape, at', [
    ('mini', (33, 47), [(5, 7, 2), (31, 0, 0)]),
    ('four', (2, 21, 30), [(1, 20, 29, 3)]),
])
def test_values_that_are_not_numbers_are_counted_and_placed(
        name, shape, at, value, shown, engine, packed):
    segmentor = PackedSegmentor(packed(name, **MODELS[name]))
    channels = MODELS[name].get('in_channels', 3)
    image = picture(shape, channels).astype(np.float64)
    expected = segmentor.predict(image)
    for index in at:
        image[index] = value
    row, column, channel = at[0][-3:]
    for method in (segmentor.predict, segmentor.logits):
        with pytest.raises(UserError) as error:
            method(image)
        text = str(error.value)
        assert f'row {row}, column {column}, channel {channel}' in text and shown in text
        assert f'has {len(at)} of {np.prod(shape[-2:]) * channels}' in text
    for index in at:
        image[index] = segmentor.mean[index[-1]]
    assert (segmentor.predict(image) != expected).mean() < 0.5


@pytest.mark.parametrize('options, words', [
    (dict(threads=0), 'threads=0'),
    (dict(threads=1.5), 'threads=1.5'),
    (dict(threads=2**40), 'from 1 to 256'),
    (dict(isa='sse9'), 'sse9'),
    (dict(isa=7), 'isa=7'),
    (dict(path=3), '3'),
    (dict(path='bad\0name'), 'bad'),
    (dict(path='/'), "'/'"),
])
def test_wrong_arguments_are_named(options, words, engine, packed):
    with pytest.raises(UserError) as error:
        PackedSegmentor(**{'path': packed('mini'), **options})
    assert words in str(error.value) and '\n' not in str(error.value)


def test_missing_engine_says_what_to_install(monkeypatch, packed):
    monkeypatch.setitem(sys.modules, 'bhvit_seg.native._engine', None)
    monkeypatch.delattr(bhvit_seg.native, '_engine', raising=False)
    with pytest.raises(UserError, match=r'compiler .* pip install'):
        PackedSegmentor(packed('mini'))
