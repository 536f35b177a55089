"""Fixtures shared by all tests."""

import contextlib
import gc
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

# Tiny networks: a second thread costs more than it saves, and workers share the same cores.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest

with contextlib.suppress(ImportError):
    # Its first import writes a cache of its grammar: here, before the processes of pytest-xdist
    # would do so at the same moment.
    from yapf.yapflib import yapf_api

    # mmengine formats the text of a config for each log and checkpoint, which takes longer than
    # the tiny trainings themselves.
    yapf_api.FormatCode = lambda text, *args, **kwargs: (text, True)

REPOSITORY = Path(__file__).resolve().parents[1]

# Why a test may be skipped where CI=true: the machine, and data that is not in the repository.
# Programs and packages are installed there (.ci/run), and a skip for want of one is a failure.
ALLOWED_SKIPS = re.compile(
    r'GPU|only root|cannot be mounted|no real data at|no parity cases at|/dev/full|/proc')


def _fail_skips(report):
    """Turn a skip that continuous integration does not allow into a failure."""
    if os.environ.get('CI') == 'true' and report.skipped and not hasattr(report, 'wasxfail'):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not ALLOWED_SKIPS.search(reason):
            report.outcome = 'failed'
            report.longrepr = f'a skip that CI does not allow: {reason}'
    return report


# Their test files import these.
RASTER_PACKAGES = 'rasterio', 'pyproj', 'shapely', 'pyogrio', 'skimage'
RASTERS = [] if all(map(importlib.util.find_spec, RASTER_PACKAGES)) else [
    'raster', 'commands/test_predict_raster*.py', 'commands/test_score_raster.py',
    'benchmarks/test_raster.py']
collect_ignore_glob = RASTERS


def pytest_configure():
    # What a shell starts in the background ignores Ctrl-C, and so would what tests start.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header():
    return (f'left out for want of {", ".join(RASTER_PACKAGES)}: {", ".join(RASTERS)}'
            if RASTERS else None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return _fail_skips((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return _fail_skips((yield))

# A whole experiment on `tiny_data` that takes seconds. A stock network: what is tested with it
# is how experiments run. Random crops and flips, dropout, momentum and a learning rate schedule
# make it depend on everything that resuming has to restore.
TINY_CONFIG = """
_base_ = {runtime!r}
data_root = {data_root!r}
metainfo = dict(classes=('background', 'road'), palette=[[0, 0, 0], [255, 255, 255]])
data_preprocessor = dict(
    type='SegDataPreProcessor', mean=[120.] * 3, std=[60.] * 3, bgr_to_rgb=True, pad_val=0,
    seg_pad_val=255, size=(32, 32))
model = dict(
    type='EncoderDecoder', data_preprocessor=data_preprocessor,
    backbone=dict(
        type='UNet', base_channels=4, num_stages=2, strides=(1, 1), enc_num_convs=(1, 1),
        dec_num_convs=(1,), downsamples=(True,), enc_dilations=(1, 1), dec_dilations=(1,),
        norm_cfg=dict(type='BN')),
    decode_head=dict(
        type='FCNHead', in_channels=4, in_index=-1, channels=4, num_convs=1, concat_input=False,
        dropout_ratio=0.3, num_classes=2, norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss')),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=(32, 32)), dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'), dict(type='PackSegInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset', data_root=data_root, metainfo=metainfo, pipeline=train_pipeline,
        img_suffix='.png', data_prefix=dict(
            img_path='images/train', seg_map_path='annotations/train')))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset', data_root=data_root, metainfo=metainfo, pipeline=test_pipeline,
        img_suffix='.png', data_prefix=dict(
            img_path='images/val', seg_map_path='annotations/val')))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU', 'mFscore'])
test_evaluator = val_evaluator
train_cfg = dict(type='ResumableTrainLoop', max_iters=12, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01), clip_grad=dict(max_norm=1.0))
param_scheduler = [dict(type='PolyLR', power=0.9, begin=0, end=12, by_epoch=False)]
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='ResumableCheckpointHook', by_epoch=False, interval=2, max_keep_ckpts=2,
        save_best='mIoU'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'))
custom_hooks = [dict(type='NonFiniteLossHook')]
"""


def tiny_text(data: Path) -> str:
    runtime = REPOSITORY / 'configs' / '_base_' / 'default_runtime.py'
    return TINY_CONFIG.format(runtime=str(runtime), data_root=str(data))


@pytest.fixture(scope='session', autouse=True)
def imported_modules_are_kept():
    """Leave what is imported out of garbage collections, of which mmengine runs one a dataset."""
    gc.freeze()


@pytest.fixture(scope='session')
def engine():
    """The compiled engine; tests that ask for it are skipped where it is not built."""
    return pytest.importorskip('bhvit_seg.native._engine',
                               reason='the engine is not built: pip install -e . with a compiler')


@pytest.fixture(scope='session')
def repository() -> Path:
    """The checkout that is under test."""
    return REPOSITORY


@pytest.fixture(scope='session')
def setup_arguments() -> dict:
    """What setup.py hands to setuptools."""
    code = ('import json, setuptools; setuptools.setup = lambda **kw: '
            'print(json.dumps(kw, default=repr)); '
            'exec(open("setup.py").read(), {"__file__": "setup.py", "__name__": "x"})')
    run = subprocess.run([sys.executable, '-c', code], cwd=REPOSITORY, capture_output=True,
                         text=True, check=True)
    return json.loads(run.stdout)


@pytest.fixture
def protected_folder() -> Iterator[Path]:
    """A folder with a file, neither of which may be written to.

    Root, who may write everywhere, has the rights of another user meanwhile, and pytest's own
    folders are closed to that.
    """
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / 'protected.txt').write_text('old')
        (Path(name) / 'protected.txt').chmod(0o444)
        os.chmod(name, 0o555)
        if root:
            os.setresuid(65534, 65534, 0)
        try:
            yield Path(name)
        finally:
            if root:
                os.setresuid(0, 0, 0)
            os.chmod(name, 0o700)


@pytest.fixture
def file_limit() -> Callable[[int], contextlib.AbstractContextManager]:
    """A function for ``with``: no file grows beyond a number of bytes, as on a full disk."""
    import resource

    @contextlib.contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture(scope='session')
def data_root() -> Path:
    """The folder of the real data sets; tests that ask for it are marked ``data``."""
    root = Path(os.environ.get('BHVIT_DATA') or REPOSITORY.parent / 'shared' / 'data')
    if not root.is_dir():
        pytest.skip(f'no real data at {root}: set BHVIT_DATA to the folder that holds it')
    return root


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory) -> Path:
    """Six training and three validation images, 48 x 40 pixels, with a bright road each."""
    import cv2
    import numpy as np

    root = tmp_path_factory.mktemp('tiny_data')
    rng = np.random.default_rng(0)
    for split, count in (('train', 6), ('val', 3)):
        for folder in ('images', 'annotations'):
            (root / folder / split).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(0, 120, (40, 48, 3), dtype=np.uint8)
            mask = np.zeros((40, 48), np.uint8)
            left = int(rng.integers(2, 34))
            mask[:, left:left + 12] = 1
            image[mask == 1] += 100
            assert cv2.imwrite(str(root / 'images' / split / f'{number}.png'), image)
            assert cv2.imwrite(str(root / 'annotations' / split / f'{number}.png'), mask)
    return root


@pytest.fixture(scope='session')
def ade20k_like(tmp_path_factory) -> Path:
    """Two images of 150 classes and other pixels, 0, for training and for validation, in the layout
    of ADE20K: JPEG, and masks of rectangles whose colour in the image depends on their class."""
    import cv2
    import numpy as np

    root, rng = tmp_path_factory.mktemp('ade20k'), np.random.default_rng(0)
    palette = rng.integers(0, 256, (151, 3), dtype=np.uint8)
    for split in ('training', 'validation'):
        for folder in ('images', 'annotations'):
            (root / folder / split).mkdir(parents=True)
        for number in range(2):
            mask = rng.integers(0, 151, (6, 8), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
            for name, pixels in ((f'images/{split}/{number}.jpg', palette[mask]),
                                 (f'annotations/{split}/{number}.png', mask)):
                assert cv2.imwrite(str(root / name), pixels)
    return root


@pytest.fixture
def tiny_config(tiny_data, tmp_path) -> Callable[..., Path]:
    """A function that writes the tiny experiment, with more lines at its end, and names it."""

    def write(*lines: str, name: str = 'tiny') -> Path:
        path = tmp_path / f'{name}.py'
        path.write_text('\n'.join([tiny_text(tiny_data), *lines]) + '\n')
        return path

    return write


@pytest.fixture(scope='session')
def trained(tiny_data, tmp_path_factory) -> tuple[Path, Path]:
    """The tiny experiment's config, and its checkpoint after four iterations."""
    from bhvit_seg.training.train import train

    folder = tmp_path_factory.mktemp('trained')
    config = folder / 'tiny.py'
    config.write_text(tiny_text(tiny_data) + 'train_cfg.update(max_iters=4)\n')
    train(config, work_dir=folder / 'work')
    return config, folder / 'work' / 'iter_4.pth'


@pytest.fixture
def tool() -> Callable[..., Callable]:
    """A function that returns the ``main`` of a tool of the checkout, to call in this process."""

    def load(name: str) -> Callable:
        spec = importlib.util.spec_from_file_location(Path(name).stem, REPOSITORY / name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main

    return load


@pytest.fixture
def sentence(capsys) -> Callable[..., str]:
    """A function that runs a command that has to fail, and returns the one line it says why."""

    def run(main: Callable, *args) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(arg) for arg in args])
        errors = [line for line in capsys.readouterr().err.splitlines()
                  if line.startswith('error: ')]
        assert end.value.code not in (0, None) and len(errors) == 1
        return errors[0]

    return run


@pytest.fixture
def start_tool(tmp_path) -> Callable[..., subprocess.Popen]:
    """A function that starts a tool of the checkout in a process, from a folder elsewhere."""

    def start(name: str, *args) -> subprocess.Popen:
        paths = [str(REPOSITORY), os.environ.get('PYTHONPATH', '')]
        return subprocess.Popen(
            [sys.executable, str(REPOSITORY / name), *map(str, args)], cwd=tmp_path, text=True,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return start


@pytest.fixture(scope='session')
def map_model(tmp_path_factory, engine):
    """A function that names the packed model of a small random segmentor of three classes."""
    from native.segmentors import balance_classes, build_segmentor
    from raster.rasters import NAMES, PALETTE

    from bhvit_seg.native.export import fold_segmentor
    from bhvit_seg.native.file_format import write_packed

    folder = tmp_path_factory.mktemp('map_model')

    def write(channels: int = 3, color_type: str = 'color', seed: int = 0, name: str = 'random',
              **meta) -> Path:
        path = folder / f'{name}-{channels}-{color_type}-{seed}{"-".join(meta)}.bhv'
        if not path.exists():
            segmentor = build_segmentor(in_channels=channels, classes=len(NAMES), seed=seed)
            balance_classes(segmentor)
            order = ['red', 'green', 'blue', 'further', 'more'][:channels]
            write_packed(path, fold_segmentor(segmentor), {
                'name': name, 'classes': NAMES, 'palette': PALETTE, 'window': [64, 64],
                'channels': channels, 'channel_order': order, 'color_type': color_type,
                'test_scale': None, 'align_corners': False, 'lidar': None, **meta})
        return path

    return write


@pytest.fixture
def write_raster(tmp_path):
    """A function that writes an image with fields, roads and noise as a raster and names it."""
    import numpy as np
    import rasterio
    from raster import rasters

    def write(size: tuple[int, int] = (150, 210), name: str = 'image.tif', bands: int = 3,
              dtype: str = 'uint8', seed: int = 0,
              alter: Callable = lambda pixels: None, **profile) -> Path:
        path = tmp_path / name
        pixels = rasters.paint(size, bands, seed)
        if dtype != 'uint8':
            pixels = (pixels.astype(np.float64) * 16).astype(dtype)
        alter(pixels)
        profile = {'crs': 'EPSG:32632', 'tiled': True, 'blockxsize': 64,
                   'blockysize': 64, 'compress': 'deflate',
                   'transform': rasterio.Affine(0.3, 0, 4e5, 0, -0.3, 5.3e6), **profile}
        return rasters.write_raster(path, pixels, **profile)

    return write
