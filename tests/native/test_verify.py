"""The comparison of a packed model with the simulation."""

import numpy as np
import pytest
import torch
from native.segmentors import build_segmentor

from bhvit_seg.native import verify
from bhvit_seg.native.export import fold_segmentor
from bhvit_seg.native.file_format import may_be_narrow
from bhvit_seg.native.unpacking import unpack_segmentor


@pytest.fixture(scope='module', params=[1, 32], ids='divisor={}'.format)
def model(request):
    return build_segmentor(preprocessor=dict(test_cfg=dict(size_divisor=request.param)))


@pytest.fixture(scope='module')
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((64, 64), (37, 50))]


def test_folded_labels_are_the_simulation_s(model, images, engine):
    labels = verify.packed_labels(fold_segmentor(model), images)
    check = verify.compare_with_simulation(model, labels, images)
    assert (check.images, check.pixels, check.packed) == (2, 64 * 64 + 37 * 50, 0)
    assert check.passed and check.torch_float32 < 0.01 * check.pixels
    assert next(model.parameters()).dtype == torch.float32
    unpacked = unpack_segmentor(fold_segmentor(model)).double()
    for image, expected in zip(images, labels):
        assert np.array_equal(verify.torch_labels(unpacked, image), expected)


def test_wrong_labels_do_not_pass(model, images, engine):
    tensors = fold_segmentor(model)
    tensors['stage2.block1.mlp.fc1.bias'] = tensors['stage2.block1.mlp.fc1.bias'] + 0.5
    check = verify.compare_with_simulation(
        model, verify.packed_labels(tensors, images), images)
    assert not check.passed


@pytest.mark.parametrize('name, factor', [
    # Nothing changes; one tensor needs every bit; one has values that 16 bits cannot hold.
    ('stem.weight', 1), ('stem.weight', 1.0003), ('head.classifier.weight', 1e9)])
def test_harmless_tensors_are_narrowed(name, factor, model, images, engine):
    run = verify.packed_labels
    tensors = fold_segmentor(model)
    names = set(filter(may_be_narrow, tensors))
    for each in names:
        tensors[each] = tensors[each].astype(np.float16).astype(np.float64)
    tensors[name] = tensors[name] * factor
    labels = run(tensors, images)
    narrowed, kept, changed = verify.narrow_where_harmless(tensors, images, labels, 0)
    assert set(kept) == ({name} if factor > 1 else set()) and changed == 0
    assert names - set(kept) == {
        each for each, array in narrowed.items() if array.dtype == np.float16}
    assert verify.count_changes(run(narrowed, images), labels) == 0
    if factor != 1.0003:
        return
    expected = verify.count_changes(run(verify.narrow(tensors, [name]), images), labels)
    assert kept == {name: expected} and expected
    # as many as are accepted may change, and no more
    assert set(verify.narrow_where_harmless(tensors, images, labels, expected - 1)[1]) == {name}
    narrowed, kept, changed = verify.narrow_where_harmless(tensors, images, labels, expected)
    assert not kept and changed == expected
    assert verify.count_changes(run(narrowed, images), labels) == expected


@pytest.mark.parametrize('packed, torch_float32, spare', [
    (0, 0, 262), (100, 50, 262), (362, 50, 0)])
def test_16_bits_may_change_what_leaves_the_model_accepted(packed, torch_float32, spare):
    check = verify.Verification(4, 512 * 512, packed, torch_float32)
    assert check.spare == spare
    assert verify.Verification(4, 512 * 512, packed + spare, torch_float32).passed
    assert not verify.Verification(4, 512 * 512, packed + spare + 1, torch_float32).passed
