"""The compiled engine: its integer products against torch, and how it behaves over time."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from native.plain_engine import PlainEngine
from native.segmentors import build_segmentor

from bhvit_seg.errors import UserError
from bhvit_seg.models.backbones.bhvit import ARCHITECTURES
from bhvit_seg.models.conv_module import BinaryConvModule
from bhvit_seg.models.layers import BinaryConv2d, BinaryLinear
from bhvit_seg.models.quantizers import binarize_activation
from bhvit_seg.models.token_mixers import MSGDC
from bhvit_seg.native import PackedSegmentor, instruction_sets
from bhvit_seg.native.export import fold_segmentor
from bhvit_seg.native.file_format import pack_bits, read_packed, write_packed

TINY = dict(arch=ARCHITECTURES['tiny'], head_channels=128)
UPER = dict(head='BinaryUPerHead', backbone=dict(downsampling='binary', window_size=4))


def picture(size, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, channels), np.uint8)


# --------------------------------------------------------------------- products, layer by layer


def record_products(model, image, monkeypatch):
    """Run a model; return the ±1 inputs and the products of each binary layer.

    Products are taken where all ways into a layer meet: what a caller adds to them, or does with
    the bits before, is left out.
    """
    records = {}
    convolve, multiply = BinaryConv2d.convolve, BinaryLinear.multiply

    def recording_convolve(layer, x, bias):
        product = convolve(layer, x, None)
        if layer.input_bias is not None:
            x = binarize_activation(x.permute(0, 2, 3, 1), layer.input_bias).permute(0, 3, 1, 2)
        records[layer] = x[0].permute(1, 2, 0), product[0].permute(1, 2, 0)
        return product if bias is None else product + bias[:, None, None]

    def recording_multiply(layer, x):
        product = multiply(layer, x)
        records[layer] = x[None], product[None]
        return product

    monkeypatch.setattr(BinaryConv2d, 'convolve', recording_convolve)
    monkeypatch.setattr(BinaryLinear, 'multiply', recording_multiply)
    with torch.no_grad():
        model(image)
    return records


def stored_bits(model):
    """Return the name of each binary layer's bits in the file, and which of several they are."""
    names = {}
    for s, stage in enumerate(model.backbone.stages):
        for b, block in enumerate(stage):
            mixer, prefix = block.token_mixer, f'stage{s}.block{b}'
            if isinstance(mixer, MSGDC):
                for d, conv in enumerate(mixer.convs):
                    names[conv] = f'{prefix}.mixer.bits', d
            else:
                for part in ('query', 'key', 'value', 'output'):
                    names[getattr(mixer, part).linear] = f'{prefix}.mixer.{part}.bits', ...
            names[block.mlp.fc1] = f'{prefix}.mlp.fc1.bits', ...
            names[block.mlp.fc2] = f'{prefix}.mlp.fc2.bits', ...
    for i, downsampling in enumerate(model.backbone.downsamplings):
        if isinstance(downsampling.conv, BinaryConv2d):
            names[downsampling.conv] = f'down{i}.bits', ...
    head = model.decode_head
    if hasattr(head, 'fusion_conv'):
        modules = {'fusion': head.fusion_conv,
                   **{f'conv{i}': conv for i, conv in enumerate(head.convs)}}
    else:
        modules = {'bottleneck': head.bottleneck, 'fpn_bottleneck': head.fpn_bottleneck,
                   **{f'psp{k}': branch[1] for k, branch in enumerate(head.psp_modules)},
                   **{f'lateral{i}': conv for i, conv in enumerate(head.lateral_convs)},
                   **{f'fpn{i}': conv for i, conv in enumerate(head.fpn_convs)}}
    names.update({module.conv: (f'head.{name}.bits', ...) for name, module in modules.items()
                  if isinstance(module, BinaryConvModule)})
    return names


def engine_products(engine, isa, layer, x, weights):
    """Return the engine's products for ±1 inputs ``(H, W, C)``."""
    kernel, dilation, groups = 1, 1, 1
    if isinstance(layer, BinaryConv2d):
        kernel, dilation, groups = layer.kernel_size[0], layer.dilation[0], layer.groups
    if kernel == 2:  # patches in the order (ky, kx, channel) are the inputs of a 1×1 product
        height, width, channels = x.shape
        x = x.reshape(height // 2, 2, width // 2, 2, channels).permute(0, 2, 1, 3, 4).flatten(2)
        kernel = 1
    assert (x.abs() == 1).all()
    return engine.convolve(isa, pack_bits(x.numpy() > 0), weights, kernel, dilation, groups)


@pytest.mark.parametrize('isa', ['avx512', 'avx2', 'neon', 'serial'])
@pytest.mark.parametrize('size, options', [
    ((60, 44), dict()),
    ((64, 96), dict(backbone=dict(downsampling='binary'))),
    ((64, 64), UPER),
    ((64, 64), TINY),
], ids=['full-precision', 'binary', 'uper', 'tiny'])
def test_products_of_every_layer_are_those_of_the_simulated_network(
        size, options, isa, engine, monkeypatch):
    if isa not in instruction_sets():
        pytest.skip(f'this processor has no {isa}')
    if isa == 'serial' and options is TINY:
        pytest.skip('bit by bit, this takes long')
    model = build_segmentor(**options).double()
    tensors, names = fold_segmentor(model), stored_bits(model)
    image = torch.from_numpy(picture(size)).permute(2, 0, 1).double()[None] / 64 - 2
    records = record_products(model, image, monkeypatch)
    layers = {module for part in (model.backbone, model.decode_head) for module in part.modules()
              if isinstance(module, (BinaryConv2d, BinaryLinear))}
    assert layers and layers == set(records) == set(names)
    for layer, (x, product) in records.items():
        name, part = names[layer]
        scale = layer.weight.detach().flatten(1).abs().mean(1)
        expected = product / scale
        assert (expected - expected.round()).abs().max() < 1e-6
        result = engine_products(engine, isa, layer, x, np.ascontiguousarray(tensors[name][part]))
        assert result.dtype == np.int32
        assert np.array_equal(result, expected.round().numpy()), name


@pytest.mark.parametrize('activations, weights, options', [
    ((4, 5, 1), (8, 2), dict()),
    ((4, 5, 1), (8, 1), dict(kernel=2)),
    ((4, 5, 1), (8, 1), dict(dilation=0)),
    ((4, 5, 1), (8, 1), dict(groups=0)),
    ((4, 5, 1), (12, 1), dict()),
    ((4, 5, 3), (8, 7), dict(kernel=3, groups=4)),
    ((4, 5), (8, 1), dict()),
    ((0, 5, 1), (8, 1), dict()),
])
def test_products_of_sizes_that_do_not_fit_are_refused(activations, weights, options, engine):
    with pytest.raises(engine.Error, match='convolve'):
        engine.convolve('serial', np.zeros(activations, np.uint32), np.zeros(weights, np.uint32),
                        **options)


# ------------------------------------------------------------------------ instruction sets


def test_every_instruction_set_and_number_of_threads_gives_the_same_bytes(engine, packed):
    for name, options in (('mini', {}), ('uper-binary', UPER)):
        path, image = packed(name, **options), picture((52, 76))
        answers = set()
        for isa in instruction_sets():
            for threads in range(1, 5):
                model = PackedSegmentor(path, threads, isa)
                assert (model.instruction_set, model.threads) == (isa, threads)
                answers.add(model.logits(image).tobytes() + model.predict(image).tobytes())
        assert len(answers) == 1


def test_head_with_fewer_channels_than_classes(engine, packed):
    path, image = packed('classes', classes=150, head_channels=32), picture((32, 48))
    expected = PlainEngine(read_packed(path).tensors, np.float32).logits(image)
    for isa in instruction_sets():
        np.testing.assert_allclose(PackedSegmentor(path, 1, isa).logits(image), expected,
                                   atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize('by', ['argument', 'environment'])
def test_forced_instruction_set_that_the_processor_lacks_is_named(by, engine, packed):
    lacking = set(engine.known_instruction_sets()) - set(instruction_sets())
    assert lacking
    for isa, words in [*((isa, 'not available') for isa in lacking), ('sse9', 'does not exist')]:
        code = ('import sys\nfrom bhvit_seg.errors import UserError\n'
                'from bhvit_seg.native import PackedSegmentor\n'
                'try:\n    PackedSegmentor(*sys.argv[1:2], 1, *sys.argv[2:])\n'
                'except UserError as error:\n    print(error)\n')
        environment = {key: value for key, value in os.environ.items() if key != 'BHVIT_ISA'}
        arguments = [isa] if by == 'argument' else []
        if by == 'environment':
            environment['BHVIT_ISA'] = isa
        process = subprocess.run([sys.executable, '-c', code, str(packed('mini')), *arguments],
                                 env=environment, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        line, = process.stdout.splitlines()
        assert isa in line and words in line and ('BHVIT_ISA' in line) == (by == 'environment')
        assert all(name in line for name in instruction_sets())


# --------------------------------------------------------------------------------- damage


def damaged(content, kind, rng):
    """Return a file with one thing wrong with it."""
    content = bytearray(content)
    if kind == 'cut':
        return content[:rng.integers(len(content))]
    if kind == 'longer':
        return content + bytes(int(rng.integers(1, 40)))
    if kind == 'bit':
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        return content
    # as if it had been written so: the checksum fits
    end = 2000 if kind == 'sealed head' else len(content)
    for _ in range(int(rng.integers(1, 4))):
        content[rng.integers(28, end)] = int(rng.choice([0, 1, 127, 128, 255]))
    content[24:28] = zlib.crc32(content[28:]).to_bytes(4, 'little')
    return content


def test_damaged_files_are_refused_in_one_sentence_or_run(engine, packed, tmp_path):
    content, path = packed('mini').read_bytes(), tmp_path / 'damaged.bhv'
    rng, ends = np.random.default_rng(0), []
    image = picture((9, 13))
    for attempt in range(400):
        kind = ('cut', 'longer', 'bit', 'sealed head', 'sealed')[attempt % 5]
        path.write_bytes(damaged(content, kind, rng))
        try:
            PackedSegmentor(path, 1).predict(image)
            ends.append((kind, 'ran'))
        except UserError as error:
            assert 'damaged.bhv' in str(error) and '\n' not in str(error), (attempt, error)
            ends.append((kind, 'refused'))
    # a seal that fits can hide a changed weight, and nothing else can hide a change
    assert {end for end in ends if end[1] == 'ran'} <= {('sealed head', 'ran'), ('sealed', 'ran')}
    assert ('sealed head', 'refused') in ends and ('sealed', 'ran') in ends


def without(name):
    return lambda tensors: tensors.pop(name)


def numbers(at, value):
    def change(tensors):
        tensors['architecture'] = tensors['architecture'].copy()
        tensors['architecture'][at] = value
    return change


def replaced(name, make):
    return lambda tensors: tensors.update({name: np.ascontiguousarray(make(tensors[name]))})


@pytest.mark.parametrize('change', [
    without('head.fusion.bits'),
    without('architecture'),
    replaced('architecture', lambda array: array[:22]),
    replaced('stem.position', lambda array: array[:, :0, :0]),
    replaced('stem.position', lambda array: array[:, :, :3]),
    replaced('stem.position', lambda array: array[0]),
    replaced('stem.bias', lambda array: array.view(np.uint32)),
    replaced('stage0.block0.mixer.bits', lambda array: array.view(np.float32)),
    replaced('stage0.block0.mlp.taps', lambda array: array.T),
    numbers(0, 4),  # input channels
    numbers(1, 2),  # depth
    numbers(1, -1),
    numbers(5, 48),  # channels
    numbers(5, 1 << 30),
    numbers(9, 0),  # hidden channels
    numbers(15, 3),  # heads
    numbers(17, 0),  # window
    numbers(17, 1000),
    numbers(18, 1),  # downsampling
    numbers(19, 2),  # head
    numbers(20, 33),
    numbers(21, 0),  # classes
    numbers(21, 257),
    numbers(22, 2),
])
def test_contents_that_do_not_fit_one_another_are_refused(change, engine, packed, tmp_path):
    tensors, path = dict(read_packed(packed('mini')).tensors), tmp_path / 'changed.bhv'
    change(tensors)
    write_packed(path, tensors, {})
    with pytest.raises(UserError) as error:
        PackedSegmentor(path, 1)
    assert 'changed.bhv' in str(error.value) and '\n' not in str(error.value)


def test_bits_behind_the_last_input_never_count(engine, packed, tmp_path):
    packed_model, path = read_packed(packed('mini')), tmp_path / 'tail.bhv'
    tensors, image = dict(packed_model.tensors), picture((40, 40))
    name = 'stage0.block0.mixer.bits'
    assert tensors[name].shape[-1] == 3  # 9 · 8 inputs
    tensors[name] = tensors[name] | np.array([0, 0, 0xffffff00], np.uint32)
    write_packed(path, tensors, {})
    try:
        models = [PackedSegmentor(path, 1, isa) for isa in instruction_sets()]
    except UserError as error:
        assert 'tail.bhv' in str(error)
        return
    expected = PackedSegmentor(packed('mini'), 1).logits(image)
    assert all(np.array_equal(model.logits(image), expected) for model in models)


# ----------------------------------------------------------------------------- a long life


def resident_bytes():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


needs_proc = pytest.mark.skipif(not os.path.exists('/proc/self/statm'),
                                reason='memory in use is read from /proc')


@needs_proc
def test_ten_thousand_calls_do_not_grow_memory(engine, packed):
    model, image = PackedSegmentor(packed('mini'), 2), picture((8, 8))
    first = model.predict(image)
    for _ in range(100):
        model.predict(image)
    before = resident_bytes()
    for _ in range(10_000):
        labels = model.predict(image)
    assert np.array_equal(labels, first)
    assert resident_bytes() - before < 1 << 20


@needs_proc
def test_sizes_and_models_that_come_and_go_do_not_grow_memory(engine, packed):
    path = packed('uper-binary', **UPER)
    model = PackedSegmentor(path, 2)
    images = [picture((height, width)) for height in (8, 40, 100) for width in range(20, 180, 20)]

    def use_all():
        for image in images:
            model.predict(image)
        PackedSegmentor(path, 3).predict(images[0])

    for _ in range(3):
        use_all()
    before = resident_bytes()
    for _ in range(30):
        use_all()
    assert resident_bytes() - before < 16 << 20


def test_models_of_all_instruction_sets_side_by_side(engine, packed):
    image = picture((64, 80))
    models = [PackedSegmentor(packed(name, **options), 2, isa)
              for name, options in (('mini', {}), ('uper-binary', UPER))
              for isa in instruction_sets()]
    alone = [model.logits(image) for model in models]

    def often(index):
        return all(np.array_equal(models[index].logits(image), alone[index]) for _ in range(5))

    with ThreadPoolExecutor(2 * len(models)) as pool:
        assert all(pool.map(often, 2 * list(range(len(models)))))


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system does not fork')
def test_forked_process_predicts_and_ends(engine, packed):
    code = ('import os, signal, sys, time, numpy as np\n'
            'from bhvit_seg.native import PackedSegmentor\n'
            'model = PackedSegmentor(sys.argv[1], 3)\nimage = np.zeros((64, 64, 3), np.uint8)\n'
            'labels = model.predict(image)\n'
            'time.sleep(0.05)  # the threads fall asleep\n'
            'child = os.fork()\n'
            'if child == 0:\n    signal.alarm(20)\n'
            'same = np.array_equal(model.predict(image), labels)\n'
            'sys.exit(not same if child == 0 else os.waitpid(child, 0)[1] != 0)\n')
    run = subprocess.run([sys.executable, '-c', code, str(packed('mini'))], capture_output=True,
                         text=True)
    assert run.returncode == 0, run.stderr


@needs_proc
def test_threads_that_cannot_be_started_are_named(engine, packed):
    code = ('import resource, sys\nfrom bhvit_seg.errors import UserError\n'
            'from bhvit_seg.native import PackedSegmentor\n'
            'resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n'
            'try:\n    PackedSegmentor(sys.argv[1], 256)\n'
            'except UserError as error:\n    print(error)\n')
    run = subprocess.run([sys.executable, '-c', code, str(packed('mini'))], capture_output=True,
                         text=True)
    assert run.returncode == 0, run.stderr
    line, = run.stdout.splitlines()
    assert '256' in line and 'threads' in line
