"""ONNX files label as torch does, and say what readers of such files look for."""

import json

import numpy as np
import pytest
import torch
from native.segmentors import balance_classes, build_segmentor, picture, write_experiment

from bhvit_seg.cli import main as bhvit_seg
from bhvit_seg.datasets.synthetic import generate_scene
from bhvit_seg.errors import UserError
from bhvit_seg.native import PackedSegmentor, onnx_network
from bhvit_seg.native.onnx_export import export_onnx, runtime_labels
from bhvit_seg.native.onnx_network import OnnxSegmentor, Pixels, fold_for_runtimes
from bhvit_seg.native.packing import export_packed
from bhvit_seg.native.verify import torch_labels

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')


@pytest.mark.parametrize('options', [
    dict(), dict(head='BinaryUPerHead'), dict(align_corners=True), dict(in_channels=4),
    dict(backbone=dict(downsampling='binary')), dict(backbone=dict(binary=False)),
    dict(backbone=dict(attention='gsb')), dict(backbone=dict(attention='boolean')),
    dict(backbone=dict(attention_span='global', shifts=False, norm_cfg=dict(type='LN'))),
    *(dict(backbone=dict(downsampling='binary', adaptive=adaptive),
           head_options=dict(adaptive=adaptive)) for adaptive in ('image', 'running')),
], ids=str)
@torch.no_grad()
def test_the_folded_network_is_the_trained_one(options, monkeypatch):
    monkeypatch.setattr(onnx_network, 'HIDDEN_VALUES', 3000)  # several chunks, the last one smaller
    model = build_segmentor(**options).double()
    image = torch.randn(1, options.get('in_channels', 3), 72, 100).double()
    torch.testing.assert_close(fold_for_runtimes(model)(image), model(image), rtol=0, atol=1e-9)


def test_pixels_are_normalised_as_the_preprocessor_does():
    model = build_segmentor(in_channels=4)
    image = torch.from_numpy(picture((8, 9), 4)).permute(2, 0, 1)
    expected = model.data_preprocessor({'inputs': [image[[2, 1, 0, 3]]]})['inputs']
    torch.testing.assert_close(Pixels(model, 255)(image / 255)[None], expected)


@pytest.mark.parametrize('size,options', [
    (96, dict(head='BinaryUPerHead', align_corners=True)),
    (64, dict(in_channels=4, backbone=dict(downsampling='binary', attention='gsb'))),
    (64, dict(backbone=dict(binary=False), head_options=dict(binary=False))),
    (96, dict(backbone=dict(adaptive='image'))),
    (64, dict(classes=2, head_options=dict(out_channels=1, threshold=0.4, loss_decode=dict(
        type='CrossEntropyLoss', use_sigmoid=True)))),
], ids=str)
def test_runtime_gives_the_probabilities_of_torch(tmp_path, size, options):
    config, checkpoint = write_experiment(tmp_path, **options)
    out = tmp_path / 'model.onnx'
    report = export_onnx(config, checkpoint, out, size)
    check = report.verification
    assert check.packed <= check.allowed < check.pixels / 4 and check.images == 2
    channels = options.get('in_channels', 3)
    image = picture((size, size), channels)
    session = onnxruntime.InferenceSession(str(out))
    source, = session.get_inputs()
    assert source.shape == [1, channels, size, size]
    inputs = image.transpose(2, 0, 1)[None] / 255
    got, = session.run(None, {source.name: np.float32(inputs)})
    np.testing.assert_allclose(got.sum(1), 1, rtol=1e-5)
    model = build_segmentor(**options)
    balance_classes(model)
    truth = torch_labels(model.double(), image)
    labels = OnnxSegmentor(model).double()(torch.from_numpy(inputs)).argmax(1)[0].numpy()
    assert (labels == truth).mean() > 0.99 and len(np.unique(truth)) > 1


def test_dynamic_size_and_the_versions_of_the_format(tmp_path):
    config, checkpoint = write_experiment(tmp_path)
    report = export_onnx(config, checkpoint, tmp_path / 'model.onnx', 64, dynamic=True)
    assert report.verification.passed and report.verification.pixels == 64 * 64 + 96 * 160
    model = onnx.load(tmp_path / 'model.onnx')
    # onnxruntime 1.16 reads IR 9 and opset 19 at most
    assert model.ir_version <= 9 and [each.version for each in model.opset_import] == [18]


def test_geodeep_reads_the_file(tmp_path):
    """GeoDeep's own code finds the keys, and predicts what onnxruntime does."""
    inference = pytest.importorskip('geodeep.inference')
    from geodeep import segment
    from geodeep.segmentation import execute_segmentation
    from rasterio import open as open_raster
    from rasterio.transform import from_origin

    config, checkpoint = write_experiment(tmp_path, classes=3)
    config.write_text(config.read_text() + 'ground_sampling_distance = 0.2\n')
    out = tmp_path / 'model.onnx'
    export_onnx(config, checkpoint, out, 64, verify=False)
    session, read = inference.create_session(str(out))
    assert read['class_names'] == {str(i): f'class {i}' for i in range(3)}
    assert read['model_type'] == 'Segmentor' and read['tiles_size'] == 64
    assert read['resolution'] == 20 and read['seg_thresh'] == read['seg_small_segment'] == 0
    image = generate_scene(0, (64, 64)).image
    mask = execute_segmentation(image.transpose(2, 0, 1), session, read)
    expected, = runtime_labels(out, [image])
    assert (mask[0] == expected).mean() > 0.99 and len(np.unique(expected)) > 1
    with open_raster(tmp_path / 'map.tif', 'w', driver='GTiff', width=64, height=64, count=3,
                     dtype='uint8', crs='EPSG:25832', tiled=True, blockxsize=64, blockysize=64,
                     transform=from_origin(5e5, 5e6, 0.2, 0.2)) as raster:
        raster.write(image.transpose(2, 0, 1))
    smoothed = segment(str(tmp_path / 'map.tif'), str(out))  # by a median of 5×5
    assert (smoothed == expected).mean() > 0.5


def test_a_packed_model_gives_the_labels_of_the_engine(engine, tmp_path, sentence, capsys):
    config, checkpoint = write_experiment(tmp_path, in_channels=4)
    packed, out = tmp_path / 'model.bhv', tmp_path / 'model.onnx'
    export_packed(config, checkpoint, packed, verify=False)
    assert bhvit_seg(['export-onnx', str(packed), str(out), '--size', '96']) == 0
    assert '"class 4"' in capsys.readouterr().out
    image = picture((96, 96), 4)
    labels, = runtime_labels(out, [image])
    expected = PackedSegmentor(packed).predict(image)
    assert (labels == expected).mean() > 0.99 and len(np.unique(expected)) > 1
    for words, named in (([packed, out, '--cfg-options', 'a=1'], '--cfg-options'),
                         ([tmp_path / 'none.bhv', out], 'none.bhv'),
                         ([config, checkpoint, 'third', out], 'third')):
        assert named in sentence(bhvit_seg, 'export-onnx', *words)


def test_deepness_keys_are_json(tmp_path):
    config, checkpoint = write_experiment(tmp_path, in_channels=4)
    report = export_onnx(config, checkpoint, tmp_path / 'model.onnx', verify=False)
    properties = {each.key: each.value for each in onnx.load(report.path).metadata_props}
    read = {key: json.loads(value) for key, value in properties.items()}
    assert read['tile_size'] == read['tiles_size'] == 64 and 'resolution' not in read
    assert read['standardization_mean'] == [0] * 4 and read['standardization_std'] == [1] * 4
    assert read['tiles_overlap'] == 25 and len(read['class_names']) == 5


@pytest.mark.parametrize('arguments,message', [
    (dict(size=100), '100'), (dict(size=32), '32'), (dict(dynamic=True), '--dynamic')], ids=str)
def test_what_cannot_be_exported_is_refused(tmp_path, arguments, message):
    config, checkpoint = write_experiment(tmp_path, head='BinaryUPerHead')
    with pytest.raises(UserError, match=message):
        export_onnx(config, checkpoint, tmp_path / 'model.onnx', **arguments)
    assert not list(tmp_path.glob('*.onnx*'))
