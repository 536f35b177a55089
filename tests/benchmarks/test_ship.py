"""A model that is shipped: exported, scored and listed by one command, and found by its name."""

import json

import numpy as np
import pytest
from native.segmentors import write_experiment
from PIL import Image

import benchmarks.ship as module
from bhvit_seg import shipped
from bhvit_seg.cli import main as bhvit_seg

VAL = """
ground_sampling_distance = 0.5
val_dataloader = dict(dataset=dict(
    type='RSLVFDataset', data_root={root!r}, pipeline=[
        dict(type='LoadAerialImage'), dict(type='LoadAerialAnnotations'),
        dict(type='PackSegInputs')],
    data_prefix=dict(img_path='images/val', seg_map_path='annotations/val')))
test_dataloader = val_dataloader
"""
TEXTS = ['--title', 'Random labels', '--data', 'noise', '--licence', 'CC0', '--attribution',
         'one line', 'another line', '--split', 'three tiles']


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    folder = tmp_path / 'zoo'
    folder.mkdir()
    (folder / 'index.json').write_text('{}')
    for place in (shipped, module):
        monkeypatch.setattr(place, 'ZOO', folder)
    return folder


@pytest.fixture
def experiment(engine, tiny_data, tmp_path):
    config, checkpoint = write_experiment(tmp_path, classes=2)
    config.write_text(config.read_text() + VAL.format(root=str(tiny_data)))
    return str(config), str(checkpoint)


def test_shipped_index_is_sound():
    for name, entry in shipped.shipped_models().items():
        assert shipped.find_model(name).stat().st_size == entry['bytes']
        assert entry['sha256'] in shipped.model_card(name)
        assert entry['licence'] and entry['attribution'] and entry['scores']['images']
    assert sum(path.stat().st_size for path in shipped.ZOO.iterdir()) < module.LARGEST


def test_one_command_ships_a_model(zoo, experiment, tiny_data, tmp_path, capsys, sentence,
                                   monkeypatch):
    monkeypatch.setattr(module, 'SHOWN', 2)
    arguments = ['random-labels', *experiment, *TEXTS]
    module.main([*arguments, '--failures', str(tmp_path / 'worst.png')])
    with Image.open(tmp_path / 'worst.png') as sheet:  # two of three images, each with two maps
        assert [side // module.SIDE for side in sheet.size] == [3, 2]
    entry = json.loads((zoo / 'index.json').read_text())['random-labels']
    assert entry['classes'] == ['background', 'road']
    assert entry['ground_sampling_distance'] == 0.5 and entry['window'] == [64, 48]
    assert sorted(path.name for path in zoo.iterdir()) == [
        'index.json', 'random-labels.bhv', 'random-labels.md']

    # The scores are those of the labels that the command of users writes.
    capsys.readouterr()
    images, out = tiny_data / 'images' / 'val', tmp_path / 'out'
    assert bhvit_seg(['predict', str(images), '--model', 'random-labels', '--out', str(out)]) == 0
    predicted, truth = (np.stack([np.array(Image.open(folder / f'{i}.png')) for i in range(3)])
                        for folder in (out / 'labels', tiny_data / 'annotations' / 'val'))
    for label, name in enumerate(entry['classes']):
        iou = 100 * (((predicted == label) & (truth == label)).sum()
                     / ((predicted == label) | (truth == label)).sum())
        assert entry['scores']['IoU'][name] == pytest.approx(iou)
    assert entry['scores']['aAcc'] == pytest.approx(100 * (predicted == truth).mean())

    assert bhvit_seg(['models']) == 0
    listing = capsys.readouterr().out
    assert 'random-labels' in listing and ' 0.5 ' in listing
    assert bhvit_seg(['models', 'random-labels']) == 0
    card = capsys.readouterr().out
    for text in ('another line', entry['sha256'], f'{entry["scores"]["mIoU"]:.1f}', 'CC0'):
        assert text in card

    # What was written by hand stays, and nothing is replaced unasked.
    path = zoo / 'random-labels.md'
    path.write_text(path.read_text() + 'It knows nothing.\n')
    assert 'random-labels' in sentence(module.main, *arguments)
    module.main([*arguments, '--replace', '--licence', 'CC BY 4.0'])
    text = path.read_text()
    assert 'It knows nothing.' in text and 'CC BY 4.0' in text and 'CC0' not in text

    (zoo / 'random-labels.bhv').write_bytes(b'damaged')
    line = sentence(bhvit_seg, 'predict', images, '--model', 'random-labels', '--out', out)
    assert 'random-labels.bhv' in line and entry['sha256'] in line
