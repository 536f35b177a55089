"""What a prediction writes, keeps, and refuses to replace; with models whose labels are known."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from bhvit_seg.datasets.image_io import read_pixels
from bhvit_seg.errors import UserError
from bhvit_seg.inference import prediction
from bhvit_seg.inference.prediction import predict_files
from bhvit_seg.inference.predictor import LoadedImage, Predictor

META = dict(name='bright', classes=['dark', 'bright'], palette=[[0, 0, 0], [255, 255, 0]],
            channels=3, lidar=None, color_type='color', window=(16, 24), test_scale=None)


class BrightModel(Predictor):
    """Class 1 where the mean of a pixel is above 127; ``digest`` is of its weights."""

    cell, batch = 1, 2

    def load(self, image, lidar=None):
        pixels = read_pixels(str(image), 'unchanged' if self.channels != 3 else 'color')[0]
        return LoadedImage(pixels, pixels)

    def predict(self, image):
        return (image.pixels.mean(2) > 127).astype(np.uint8)

    def scores(self, windows):
        self.largest = max(windows.shape[1:3])
        mean = windows.mean(3, dtype=np.float32) - 127
        return np.stack([-mean, mean], 1)

    def label(self, scores):
        return scores.argmax(0).astype(np.uint8)


class Source:
    """Gives a :class:`BrightModel` of a weights file."""

    config = None

    def __init__(self, weights, model=BrightModel, **meta):
        self.weights = str(weights)
        self.model = model({**META, **meta}, [100.] * 3, str(weights))

    def load(self, windows=True):
        return self.model


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path / 'weights.pth')


def draw(path, seed, size=(20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def labels_of(path):
    """What the model gives an image."""
    return np.asarray(Image.open(path).convert('RGB')).mean(2) > 127


def assert_labels(out, name, image):
    assert (np.asarray(Image.open(out / 'labels' / f'{name}.png')) == labels_of(image)).all()


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


def test_images_of_one_name_from_another_folder_do_not_count_as_done(source, tmp_path):
    first, second = (draw(tmp_path / site / 'sub' / 'tile.png', seed)
                     for seed, site in enumerate(('north', 'south')))
    out = tmp_path / 'out'
    predict_files([tmp_path / 'north'], source, out)
    with pytest.raises(UserError, match=r'north.sub.tile\.png.*south.sub.tile\.png.*--out'):
        predict_files([tmp_path / 'south'], source, out)
    assert_labels(out, 'sub/tile', first)
    assert predict_files([tmp_path / 'south'], source, out, overwrite=True).written == [second]
    assert_labels(out, 'sub/tile', second)
    # A folder of another name beside it does no harm.
    third = draw(tmp_path / 'west' / 'other' / 'tile.png', 2)
    assert predict_files([tmp_path / 'west'], source, out).written == [third]
    assert predict_files([tmp_path / 'south'], source, out).skipped == [second]


@pytest.mark.parametrize('change', ['content', 'time'])
def test_a_changed_image_is_predicted_again(source, tmp_path, change):
    image, kept = draw(tmp_path / 'in' / 'x.png', 0), draw(tmp_path / 'in' / 'y.png', 1)
    predict_files([tmp_path / 'in'], source, tmp_path / 'out')
    if change == 'content':
        draw(image, 5, (40, 30))
    else:
        os.utime(image, (1, 1))
    report = predict_files([tmp_path / 'in'], source, tmp_path / 'out')
    assert (report.written, report.skipped) == ([image], [kept])
    assert_labels(tmp_path / 'out', 'x', image)
    assert predict_files([tmp_path / 'in'], source, tmp_path / 'out').skipped == [image, kept]


def test_an_image_beside_one_of_its_stem_leaves_no_stale_labels(source, tmp_path):
    folder, out = tmp_path / 'in', tmp_path / 'out'
    png = draw(folder / '7.png', 0)
    predict_files([folder], source, out)
    assert files_in(out / 'labels') == ['7.png']
    tif = draw(folder / '7.tif', 1)
    assert len(predict_files([folder], source, out).written) == 2
    assert files_in(out / 'labels') == files_in(out / 'overlays') == ['7.png.png', '7.tif.png']
    assert_labels(out, '7.png', png)
    assert_labels(out, '7.tif', tif)
    png.unlink()
    predict_files([folder], source, out)
    assert files_in(out / 'labels') == ['7.png', '7.png.png']  # one of a file that is gone
    assert_labels(out, '7', tif)


@pytest.mark.parametrize('kind', ['labels', 'overlays'])
def test_files_of_unknown_origin_are_not_replaced(source, tmp_path, kind):
    draw(tmp_path / 'in' / 'a.png', 0)
    mine = tmp_path / 'out' / kind / 'a.png'
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b'drawn by hand')
    with pytest.raises(UserError, match=r'a\.png exists.*--overwrite'):
        predict_files([tmp_path / 'in'], source, tmp_path / 'out')
    assert mine.read_bytes() == b'drawn by hand' and not (tmp_path / 'out' / 'x').exists()
    if kind == 'overlays':
        assert predict_files([tmp_path / 'in'], source, tmp_path / 'out', overlay=False).written
        assert mine.read_bytes() == b'drawn by hand'
    assert predict_files([tmp_path / 'in'], source, tmp_path / 'out', overwrite=True).written


def test_what_is_read_is_never_written(tmp_path):
    image = draw(tmp_path / 'labels' / 'a.png', 0)
    before = image.read_bytes()
    for given, weights in ((image, tmp_path / 'w.pth'),
                           (draw(tmp_path / 'b.png', 1), tmp_path / 'overlays' / 'b.png')):
        with pytest.raises(UserError, match='is an input'):
            predict_files([given], Source(weights), tmp_path, overwrite=True)
    assert image.read_bytes() == before and not (tmp_path / 'prediction.json').exists()
    link = tmp_path / 'elsewhere'
    link.symlink_to(tmp_path)
    with pytest.raises(UserError, match='is an input'):
        predict_files([image], Source('w.pth'), link, overwrite=True)


def test_options_are_part_of_what_a_prediction_is(source, tmp_path):
    image = draw(tmp_path / 'a.png', 0)

    def run(**options):
        return bool(predict_files([image], source, tmp_path / 'out', **options).written)

    assert run(overlay=False) and not run(overlay=False)
    assert run() and not run() and not run(overlay=False)
    assert run(opacity=0.25) and not run(opacity=0.25)
    assert run(window=16, opacity=0.25) and not run(window=16, opacity=0.25)
    assert run(whole=True) and not run(whole=True, overlay=False)
    assert run(overwrite=True)


@pytest.mark.parametrize('change', ['options', 'image', 'neighbour', 'interrupted'])
def test_a_label_map_corrected_by_hand_is_not_replaced(source, tmp_path, monkeypatch, change):
    image, options = draw(tmp_path / 'in' / 'a.png', 0), {}
    label = tmp_path / 'out' / 'labels' / 'a.png'
    if change == 'interrupted':
        draw(tmp_path / 'in' / 'b.png', 1)
        load = BrightModel.load

        def stop(self, image, lidar=None):
            if image.name == 'b.png':
                raise KeyboardInterrupt
            return load(self, image, lidar)

        monkeypatch.setattr(BrightModel, 'load', stop)
        with pytest.raises(KeyboardInterrupt):
            predict_files([tmp_path / 'in'], source, tmp_path / 'out')
        monkeypatch.undo()
    else:
        predict_files([tmp_path / 'in'], source, tmp_path / 'out')
    Image.fromarray(np.full((4, 4), 1, np.uint8)).save(label)
    before = label.read_bytes()
    # As long as nothing else is asked for, it stays without a word.
    assert image not in predict_files([tmp_path / 'in'], source, tmp_path / 'out').written
    if change == 'image':
        draw(image, 2)
        os.utime(image, ns=(1, 1))
    elif change == 'neighbour':
        draw(tmp_path / 'in' / 'a.bmp', 3)
    else:
        options = {'opacity': 0.3}
    with pytest.raises(UserError, match=r'labels/a\.png was changed'):
        predict_files([tmp_path / 'in'], source, tmp_path / 'out', **options)
    assert label.read_bytes() == before
    predict_files([tmp_path / 'in'], source, tmp_path / 'out', overwrite=True, **options)
    assert not label.exists() or label.read_bytes() != before


def test_other_weights_are_not_mixed_in(tmp_path):
    first, second = draw(tmp_path / 'a.png', 0), draw(tmp_path / 'b.png', 1)
    predict_files([first], Source('one.pth'), tmp_path / 'out')
    with pytest.raises(UserError, match=r'predictions of one\.pth, not of two\.pth'):
        predict_files([second], Source('two.pth'), tmp_path / 'out')
    predict_files([second], Source('two.pth'), tmp_path / 'out', overwrite=True)
    record = json.loads((tmp_path / 'out' / 'prediction.json').read_text())
    assert {name: record['models'][entry['model']] for name, entry in record['images'].items()
            } == {'a': 'one.pth', 'b': 'two.pth'}


@pytest.mark.parametrize('content', ['', '[]', '{"models": {}}', '{"checkpoint": "x"}', '\xff'])
def test_damaged_records_are_named(source, tmp_path, content):
    image = draw(tmp_path / 'a.png', 0)
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'prediction.json').write_text(content, encoding='latin-1')
    with pytest.raises(UserError, match=r'prediction\.json.*--overwrite'):
        predict_files([image], source, tmp_path / 'out')
    assert predict_files([image], source, tmp_path / 'out', overwrite=True).written


def test_a_run_that_was_killed_is_continued(source, tmp_path, monkeypatch):
    images = [draw(tmp_path / 'in' / f'{i}.png', i) for i in range(4)]

    class Killed(BaseException):
        pass

    def kill(job, *args, write=prediction.write_prediction):
        if job.image == images[2]:
            raise Killed
        write(job, *args)

    with monkeypatch.context() as patch:
        patch.setattr(prediction, 'write_prediction', kill)
        with pytest.raises(Killed):
            predict_files([tmp_path / 'in'], source, tmp_path / 'out')
    report = predict_files([tmp_path / 'in'], source, tmp_path / 'out')
    assert (report.skipped, report.written) == (images[:2], images[2:])


def test_large_images_go_by_windows_and_it_is_said(source, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction, 'MAX_WHOLE', 40 * 50)
    small, large = (draw(tmp_path / 'in' / name, seed, size) for seed, (name, size) in enumerate(
        [('a.png', (40, 50)), ('b.png', (41, 67))]))
    report = predict_files([tmp_path / 'in'], source, tmp_path / 'out')
    note, = report.notes
    assert 'b.png' in note and 'a.png' not in note and '16x24' in note and '--whole' in note
    assert source.model.largest == 24
    assert_labels(tmp_path / 'out', 'a', small)
    assert_labels(tmp_path / 'out', 'b', large)
    del source.model.largest
    assert not predict_files([tmp_path / 'in'], source, tmp_path / 'out', whole=True).notes
    assert not hasattr(source.model, 'largest')
    assert not predict_files([tmp_path / 'in'], source, tmp_path / 'out', window=32).notes
    assert source.model.largest == 32
    for options in (dict(window=0), dict(window=16, whole=True)):
        with pytest.raises(UserError, match='--window'):
            predict_files([large], source, tmp_path / 'out', **options)


def test_models_that_slide_or_cannot_be_joined_take_images_as_they_do(source, tmp_path,
                                                                     monkeypatch):
    monkeypatch.setattr(prediction, 'MAX_WHOLE', 4)
    image = draw(tmp_path / 'a.png', 0)
    for name, value in (('slides', True), ('cell', None)):
        monkeypatch.setattr(source.model, name, value, raising=False)
        assert not predict_files([image], source, tmp_path / 'out', overwrite=True).notes
        monkeypatch.undo()
        monkeypatch.setattr(prediction, 'MAX_WHOLE', 4)


@pytest.mark.parametrize('dtype, scale, warned', [
    (np.float32, 1, True), (np.uint16, 1, True), (np.float32, 2, False), (np.uint16, 9, False)])
def test_values_of_0_to_1_are_noted(tmp_path, dtype, scale, warned):
    rasterio = pytest.importorskip('rasterio')
    values = (np.random.default_rng(0).random((4, 12, 14)) * scale).round(
        0 if dtype == np.uint16 else 3).astype(dtype)
    with rasterio.open(tmp_path / 'a.tif', 'w', 'GTiff', 14, 12, 4, dtype=dtype,
                       transform=rasterio.Affine(2, 0, 5, 0, -2, 9)) as file:
        file.write(values)
    source = Source('w.pth', channels=4, color_type='unchanged')
    report = predict_files([tmp_path / 'a.tif'], source, tmp_path / 'out')
    assert not report.failed and Image.open(tmp_path / 'out/overlays/a.png').size == (14, 12)
    assert [('a.tif' in note and '100' in note) for note in report.notes] == [True] * warned


def test_every_file_is_read_once(source, tmp_path, monkeypatch):
    from bhvit_seg.datasets import image_io

    read = []
    monkeypatch.setattr(image_io, '_read_bytes', lambda path, *rest, of=image_io._read_bytes: (
        read.append(path), of(path, *rest))[1])
    images = [str(draw(tmp_path / 'in' / f'{i}.png', i)) for i in range(3)]
    predict_files([tmp_path / 'in'], source, tmp_path / 'out')
    assert read == images


def test_what_a_model_says_about_an_image_is_said_with_its_name(tmp_path):
    class Refusing(BrightModel):
        def predict(self, image):
            raise UserError('the image has NaN in channel 1')

    image = draw(tmp_path / 'holes.png', 0)
    report = predict_files([image], Source('w.pth', Refusing), tmp_path / 'out')
    assert 'holes.png' in report.failed[image] and 'NaN' in report.failed[image]


def test_linked_folders_are_predicted(source, tmp_path):
    image = draw(tmp_path / 'store' / 'deep' / 'a.png', 0)
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in' / 'linked').symlink_to(tmp_path / 'store')
    predict_files([tmp_path / 'in'], source, tmp_path / 'out')
    assert_labels(tmp_path / 'out', 'linked/deep/a', image)
