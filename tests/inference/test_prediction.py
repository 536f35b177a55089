"""What a prediction writes, keeps, and refuses to replace; with models whose labels are known."""


import numpy as np
import pytest
from PIL import Image

from bhvit_seg.datasets import image_io
from bhvit_seg.errors import UserError
from bhvit_seg.inference import prediction
from bhvit_seg.inference.prediction import predict_files
from bhvit_seg.inference.predictor import LoadedImage, Predictor

META = dict(name='bright', classes=['dark', 'bright'], palette=[[0, 0, 0], [255, 255, 0]],
            channels=3, lidar=None, color_type='color', window=(16, 24), test_scale=None)


class BrightModel(Predictor):
    """Class 1 where the mean of a pixel is above 127; ``digest`` is of its weights."""

    cell, batch = 1, 2
    largest = None

    def load(self, image, lidar=None):
        kind = 'unchanged' if self.channels != 3 else 'color'
        pixels = image_io.read_pixels(str(image), kind)[0]
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

    def __init__(self, weights, model=BrightModel, **meta):
        self.weights, self.files = str(weights), [str(weights)]
        self.model = model({**META, **meta}, [100.] * 3, str(weights))

    def load(self, windows=True):
        return self.model


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'out'


@pytest.fixture
def predict(tmp_path, out):
    """A function that predicts, by default the folder ``in`` into ``out``."""
    source = Source(tmp_path / 'weights.pth')

    def run(*inputs, source=source, out=out, **options):
        return predict_files(inputs or [tmp_path / 'in'], source, out, **options)

    run.model = source.model
    return run


def draw(path, seed, size=(20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def assert_labels(out, name, image):
    """Compare a label map with what the model gives an image."""
    labels = np.asarray(Image.open(image).convert('RGB')).mean(2) > 127
    written = Image.open(out / 'labels' / f'{name}.png')
    assert (np.asarray(written) == labels).all()
    assert written.mode == 'P' and written.getpalette()[:6] == sum(META['palette'], [])


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


def test_images_of_one_name_from_another_folder_do_not_count_as_done(predict, out, tmp_path):
    north, south = sites = tmp_path / 'north', tmp_path / 'south'
    first, second = (draw(site / 'sub' / 'tile.png', seed) for seed, site in enumerate(sites))
    predict(north)
    with pytest.raises(UserError, match=r'sub.tile\.png is there.*south.sub.tile\.png.*--out'):
        predict(south)
    assert_labels(out, 'sub/tile', first)
    assert predict(south, overwrite=True).written == [second]
    assert_labels(out, 'sub/tile', second)
    # A folder of another name beside it does no harm.
    third = draw(tmp_path / 'west' / 'other' / 'tile.png', 2)
    assert predict(tmp_path / 'west').written == [third]
    assert predict(south).skipped == [second]


def test_a_changed_image_is_predicted_again_where_it_may_be(predict, out, tmp_path):
    image, kept = draw(tmp_path / 'in' / 'x.png', 0), draw(tmp_path / 'in' / 'y.png', 1)
    predict()
    draw(image, 5, (40, 30))
    with pytest.raises(UserError, match=r'labels.x\.png is there already'):
        predict()
    for kind in ('labels', 'overlays'):
        (out / kind / 'x.png').unlink()
    report = predict()
    assert (report.written, report.skipped) == ([image], [kept])
    assert_labels(out, 'x', image)
    assert predict().skipped == [image, kept]


def test_an_image_beside_one_of_its_stem_leaves_no_stale_labels(predict, out, tmp_path):
    png = draw(tmp_path / 'in' / '7.png', 0)
    predict()
    tif = draw(tmp_path / 'in' / '7.tif', 1)
    with pytest.raises(UserError, match=r'labels.7\.png is of .*7\.png.*7\.png\.png.*--overwrite'):
        predict()
    predict(overwrite=True)
    assert files_in(out / 'labels') == files_in(out / 'overlays') == ['7.png.png', '7.tif.png']
    assert_labels(out, '7.png', png)
    assert_labels(out, '7.tif', tif)


@pytest.mark.parametrize('kind', ['labels', 'overlays'])
def test_files_of_unknown_origin_are_not_replaced(predict, out, tmp_path, kind):
    draw(tmp_path / 'in' / 'a.png', 0)
    mine = out / kind / 'a.png'
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b'drawn by hand')
    with pytest.raises(UserError, match=r'a\.png is there already.*--overwrite'):
        predict()
    assert files_in(out) == [f'{kind}/a.png']
    if kind == 'overlays':
        assert predict(overlay=False).written
    assert mine.read_bytes() == b'drawn by hand'
    assert predict(overwrite=True).written


def test_what_is_read_is_never_written(predict, tmp_path):
    image = draw(tmp_path / 'labels' / 'a.png', 0)
    other = draw(tmp_path / 'b.png', 1)
    before = image.read_bytes()
    link = tmp_path / 'elsewhere'
    link.symlink_to(tmp_path)
    for given, weights, out in ((image, tmp_path / 'w.pth', tmp_path), (image, 'w.pth', link),
                                (other, tmp_path / 'overlays' / 'b.png', tmp_path)):
        with pytest.raises(UserError, match='is an input'):
            predict(given, source=Source(weights), out=out, overwrite=True)
    assert image.read_bytes() == before and not (tmp_path / 'prediction.json').exists()


def test_options_are_part_of_what_a_prediction_is(predict, tmp_path):
    draw(tmp_path / 'in' / 'a.png', 0)

    def run(**options):
        return bool(predict(**options).written)

    assert run(overlay=False) and not run(overlay=False)
    assert run(overwrite=True) and not run() and not run(overlay=False)
    for other in (dict(opacity=0.25), dict(window=16), dict(whole=True),
                  dict(source=Source('other.pth'))):
        with pytest.raises(UserError, match=r'labels.a\.png.*--overwrite'):
            run(**other)
    assert run(whole=True, overwrite=True) and not run(whole=True, overlay=False)


def test_a_corrected_label_map_stays_when_its_overlay_is_made_again(predict, out, tmp_path):
    draw(tmp_path / 'in' / 'a.png', 0)
    predict()
    label, overlay = out / 'labels' / 'a.png', out / 'overlays' / 'a.png'
    label.write_bytes(b'corrected')
    overlay.unlink()
    assert predict().written and overlay.exists() and label.read_bytes() == b'corrected'


@pytest.mark.parametrize('content', ['', '[]', '{"a": {}}', '{"a": null}', '\xff'])
def test_a_damaged_record_knows_nothing(predict, out, tmp_path, content):
    draw(tmp_path / 'in' / 'a.png', 0)
    predict()
    (out / 'prediction.json').write_text(content, encoding='latin-1')
    with pytest.raises(UserError, match=r'a\.png is there already.*--overwrite'):
        predict()
    assert predict(overwrite=True).written


def test_a_run_that_was_killed_is_continued(predict, tmp_path, monkeypatch):
    images = [draw(tmp_path / 'in' / f'{i}.png', i) for i in range(4)]

    class Killed(BaseException):
        pass

    def kill(job, *args, write=prediction.write_prediction):
        if job.image == images[2]:
            raise Killed
        write(job, *args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(prediction, 'write_prediction', kill)
        predict()
    report = predict()
    assert (report.skipped, report.written) == (images[:2], images[2:])


def test_large_images_go_by_windows_and_it_is_said(predict, out, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction, 'MAX_WHOLE', 40 * 50)
    small, large = (draw(tmp_path / 'in' / name, seed, size) for seed, (name, size) in enumerate(
        [('a.png', (40, 50)), ('b.png', (41, 67))]))
    note, = predict().notes
    assert 'b.png' in note and 'a.png' not in note and '16x24' in note and '--whole' in note
    assert predict.model.largest == 24
    assert_labels(out, 'a', small)
    assert_labels(out, 'b', large)
    assert not predict(window=32, overwrite=True).notes and predict.model.largest == 32
    predict.model.largest = None
    assert not predict(whole=True, overwrite=True).notes
    for name, value in (('slides', True), ('cell', None)):  # models that take images as they do
        with monkeypatch.context() as patch:
            patch.setattr(predict.model, name, value, raising=False)
            assert not predict(overwrite=True).notes
    assert predict.model.largest is None
    for options in (dict(window=0), dict(window=16, whole=True)):
        with pytest.raises(UserError, match='--window'):
            predict(**options)


def test_every_file_is_read_once(predict, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(image_io, '_read_bytes', lambda path, *rest, of=image_io._read_bytes: (
        read.append(path), of(path, *rest))[1])
    images = [str(draw(tmp_path / 'in' / f'{i}.png', i)) for i in range(3)]
    predict()
    assert read == images


def test_what_a_model_says_about_an_image_is_said_with_its_name(predict, tmp_path):
    class Refusing(BrightModel):
        def predict(self, image):
            raise UserError('the image has NaN in channel 1')

    image = draw(tmp_path / 'holes.png', 0)
    report = predict(image, source=Source('w.pth', Refusing))
    assert 'holes.png' in report.failed[image] and 'NaN' in report.failed[image]
