"""The compiled engine: instruction sets and threads, damaged files, and a long life."""

import os
import subprocess
import sys
import zlib

import numpy as np
import pytest
from native.segmentors import picture

from bhvit_seg.errors import UserError
from bhvit_seg.models.backbones.bhvit import ARCHITECTURES
from bhvit_seg.native import PackedSegmentor, instruction_sets
from bhvit_seg.native.file_format import read_packed, write_packed

NANO = dict(arch=ARCHITECTURES['nano'], backbone=dict(downsampling='binary'))
UPER = dict(head='BinaryUPerHead', backbone=dict(downsampling='binary', window_size=4))


# ------------------------------------------------------------------------ instruction sets


def test_every_instruction_set_and_number_of_threads_gives_the_same_bytes(engine, packed):
    for name, options in (('mini', {}), ('uper-binary', UPER), ('nano', NANO)):
        path, image = packed(name, **options), picture((52, 76))
        answers = set()
        for isa in instruction_sets():
            for threads in range(1, 5):
                model = PackedSegmentor(path, threads, isa)
                assert (model.instruction_set, model.threads) == (isa, threads)
                answers.add(model.logits(image).tobytes() + model.predict(image).tobytes())
        assert len(answers) == 1


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


def test_damage_that_the_checksum_hides_is_refused_in_one_sentence_or_runs(
        engine, packed, tmp_path):
    original, path, image = packed('mini').read_bytes(), tmp_path / 'damaged.bhv', picture((9, 13))
    rng, ends = np.random.default_rng(0), set()
    for attempt in range(200):
        content, in_head = bytearray(original), attempt % 2 == 0
        for _ in range(int(rng.integers(1, 4))):
            at = rng.integers(28, 2000 if in_head else len(content))
            content[at] = int(rng.choice([0, 1, 127, 128, 255]))
        content[24:28] = zlib.crc32(content[28:]).to_bytes(4, 'little')
        path.write_bytes(content)
        try:
            PackedSegmentor(path, 1).predict(image)
            ends.add((in_head, 'ran'))
        except UserError as error:
            assert 'damaged.bhv' in str(error) and '\n' not in str(error), (attempt, error)
            ends.add((in_head, 'refused'))
    # A seal that fits can hide a changed weight.
    assert {(True, 'refused'), (False, 'ran')} <= ends


def without(name):
    return lambda tensors: tensors.pop(name)


def numbers(at, value):
    def change(tensors):
        tensors['architecture'] = tensors['architecture'].copy()
        tensors['architecture'][at] = value
    return change


def replaced(name, make):
    return lambda tensors: tensors.update({name: np.ascontiguousarray(make(tensors[name]))})


def put_last(value):
    def make(array):
        array = array.copy()
        array.flat[-1] = value
        return array
    return make


@pytest.mark.parametrize('change', [
    without('head.fusion.bits'), without('architecture'),
    replaced('architecture', lambda array: array[:22]),
    replaced('stem.position', lambda array: array[:, :0, :0]),
    replaced('stem.position', lambda array: array[:, :, :3]),
    replaced('stem.position', lambda array: array[0]),
    replaced('stem.bias', lambda array: array.view(np.uint32)),
    replaced('stage0.block0.mixer.bits', lambda array: array.view(np.float32)),
    replaced('stage0.block0.mlp.taps', lambda array: array.T),
    # input channels, depth, channels, hidden channels, heads, window, downsampling, head, classes
    *(numbers(at, value) for at, value in (
        (0, 4), (1, 2), (1, -1), (5, 48), (5, 1 << 30), (9, 0), (15, 3), (17, 0),
        (18, 1), (19, 2), (20, 33), (21, 257), (22, 2), (23, 0))),
    replaced('preprocess.std', lambda array: array * [1, 0, 1]),
    replaced('preprocess.std', lambda array: -array),
    replaced('preprocess.std', lambda array: array * 1e-40),
    replaced('preprocess.mean', lambda array: array * [1, 1, np.nan]),
    replaced('stage2.block1.mixer.alpha', lambda array: array * 0),
    replaced('stage3.block0.mixer.norm_eps', lambda array: -array),
    replaced('stage2.block0.mixer.norm_eps', lambda array: array * 0),
    *(replaced(name, put_last(value)) for name, value in (
        ('stem.weight', np.inf), ('stem.position', np.nan), ('down1.weight', -np.inf),
        ('stage1.block0.mixer.slope', np.nan), ('stage2.block0.mixer.key.bit_bias', np.inf),
        ('stage3.block0.mlp.taps', np.nan), ('out2.bias', -np.inf), ('head.fusion.shift', np.nan),
        ('head.classifier.bias', np.inf))),
])
def test_contents_that_do_not_fit_one_another_are_refused(change, engine, packed, tmp_path):
    tensors, path = dict(read_packed(packed('mini')).tensors), tmp_path / 'changed.bhv'
    change(tensors)
    write_packed(path, tensors, {})
    with pytest.raises(UserError) as error:
        PackedSegmentor(path, 1)
    assert 'changed.bhv' in str(error.value) and '\n' not in str(error.value)


def test_bits_behind_the_last_input_never_count(engine, packed, tmp_path):
    tensors, path = dict(read_packed(packed('mini')).tensors), tmp_path / 'tail.bhv'
    name = 'stage0.block0.mixer.bits'
    assert tensors[name].shape[-1] == 3  # 9 · 8 inputs
    tensors[name] = tensors[name] | np.array([0, 0, 0xffffff00], np.uint32)
    write_packed(path, tensors, {})
    image = picture((40, 40))
    expected = PackedSegmentor(packed('mini'), 1).logits(image)
    for isa in instruction_sets():
        assert np.array_equal(PackedSegmentor(path, 1, isa).logits(image), expected)


# ----------------------------------------------------------------------------- a long life


def resident_bytes():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


needs_proc = pytest.mark.skipif(not os.path.exists('/proc/self/statm'),
                                reason='memory in use is read from /proc')


@needs_proc
def test_calls_sizes_and_models_do_not_grow_memory(engine, packed):
    path = packed('uper-binary', **UPER)
    model, small = PackedSegmentor(path, 2), picture((8, 8))
    images = [picture((height, width)) for height in (8, 40, 100) for width in range(20, 180, 40)]
    first = model.predict(small)

    def use_all():
        for image in images + [small] * 100:
            labels = model.predict(image)
        PackedSegmentor(path, 3).predict(images[0])
        assert np.array_equal(labels, first)

    for _ in range(3):
        use_all()
    before = resident_bytes()
    for _ in range(10):
        use_all()
    assert resident_bytes() - before < 4 << 20
