"""Items of shipped models, as pystac and its MLM extension read them."""

import hashlib
import json

import pytest
from native.segmentors import write_experiment

from bhvit_seg import shipped
from bhvit_seg.cli import main as bhvit_seg
from bhvit_seg.native.packing import export_packed

pystac = pytest.importorskip('pystac')


@pytest.fixture
def zoo(engine, tmp_path, monkeypatch):
    config, checkpoint = write_experiment(tmp_path, classes=2)
    config.write_text(config.read_text() + (
        "test_dataloader = dict(dataset=dict(metainfo=dict(classes=['no road', 'road'], "
        'palette=[[0, 0, 0], [255, 128, 1]])))\n'))
    export_packed(config, checkpoint, tmp_path / 'roads.bhv', verify=False)
    content = (tmp_path / 'roads.bhv').read_bytes()
    (tmp_path / 'index.json').write_text(json.dumps({'roads': {
        'title': 'Roads', 'classes': ['no road', 'road'], 'ground_sampling_distance': 0.5,
        'window': [64, 48], 'file': 'roads.bhv', 'bytes': len(content), 'data': 'noise',
        'sha256': hashlib.sha256(content).hexdigest(), 'licence': 'CC0', 'attribution': ['us']}}))
    monkeypatch.setattr(shipped, 'ZOO', tmp_path)
    return content


def test_item_is_valid_and_says_how_to_run_the_model(zoo, capsys):
    from pystac.extensions.classification import Classification
    from pystac.extensions.mlm import MLMExtension

    assert bhvit_seg(['models', 'roads', '--stac']) == 0
    text = json.loads(capsys.readouterr().out)
    # pystac brings the schema of STAC; those of extensions are behind their addresses.
    pystac.Item.from_dict({**text, 'stac_extensions': []}).validate()
    item = pystac.Item.from_dict(text)
    assert item.common_metadata.gsd == 0.5
    model = MLMExtension.ext(item)
    assert model.mlm_name == 'roads' and model.tasks == ['semantic-segmentation']
    source, = model.input
    assert source.input.shape == [64, 48, 3] and source.input.data_type == 'uint8'
    assert source.bands == ['red', 'green', 'blue'] == [
        band['name'] for band in item.properties['bands']]
    result, = model.output
    classes = [Classification(each) for each in result.properties['classification:classes']]
    assert [(each.value, each.name, each.color_hint) for each in classes] == [
        (0, 'no-road', '000000'), (1, 'road', 'FF8001')]
    asset = item.assets['model']
    assert asset.roles == ['mlm:model'] and asset.extra_fields['file:size'] == len(zoo)
    assert asset.extra_fields['file:checksum'] == '1220' + hashlib.sha256(zoo).hexdigest()


def test_unknown_model_is_one_sentence(zoo, sentence):
    assert 'roads-2m' in sentence(bhvit_seg, 'models', 'roads-2m', '--stac')
