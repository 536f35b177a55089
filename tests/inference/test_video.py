"""Videos through the predictors: real files of a pan over an aerial image, whole and damaged."""

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from bhvit_seg.datasets.synthetic import generate_scene
from bhvit_seg.errors import UserError
from bhvit_seg.inference import video
from bhvit_seg.inference.prediction import predict_files
from bhvit_seg.inference.source import ModelSource
from bhvit_seg.inference.video import VideoReport, ahead, label_frame, predict_video, read_frames
from bhvit_seg.shipped import find_model

FRAMES, HEIGHT, WIDTH = 30, 61, 98


@pytest.fixture(scope='session')
def clip(tmp_path_factory) -> Path:
    """A video of a pan over a real image where there is one."""
    path = tmp_path_factory.mktemp('video') / 'clip.mp4'
    found = sorted(Path(os.environ.get('BHVIT_DATA', '../shared/data')).glob(
        'aerial_pool/massachusetts_roads/images/val/*.jpg'))
    image = cv2.imread(str(found[0])) if found else generate_scene(0, (256, 256)).image
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 25, (WIDTH + 2, 64))
    for index in range(FRAMES):
        writer.write(np.ascontiguousarray(image[3 * index:][:64, 4 * index:][:, :WIDTH + 2]))
    writer.release()
    return path


@pytest.fixture
def packed(engine):
    return ModelSource(find_model('landcover'), threads=1)


@pytest.fixture
def source(request):
    if request.param == 'packed':
        return request.getfixturevalue('packed')
    config, checkpoint = request.getfixturevalue('trained')
    return ModelSource(config=config, checkpoint=checkpoint, device='cpu')


def frames_of(path) -> list[np.ndarray]:
    """Return the frames of a video, red first."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (frame := capture.read())[0]:
        frames.append(frame[1][..., ::-1])
    return frames


@pytest.mark.parametrize('source', ['packed', 'torch'], indirect=True)
@pytest.mark.parametrize('window', [None, 48])
def test_every_frame_is_labelled_as_predict_labels_it(source, window, clip, tmp_path):
    out = tmp_path / 'out.mp4'
    report = predict_video(clip, source, out, opacity=0.8, window=window)
    before, after = frames_of(clip), frames_of(out)
    assert (report.labelled, report.written, report.lost) == (FRAMES, FRAMES, 0)
    assert len(before) == len(after) == FRAMES
    chosen = 0, 13, FRAMES - 1
    (tmp_path / 'in').mkdir()
    for index in chosen:
        Image.fromarray(before[index]).save(tmp_path / 'in' / f'{index}.png')
    predict_files([tmp_path / 'in'], source, tmp_path / 'still', opacity=0.8, window=window)
    model = source.load()
    for index in chosen:
        labels, overlay = (np.asarray(Image.open(tmp_path / 'still' / kind / f'{index}.png'))
                           for kind in ('labels', 'overlays'))
        assert np.array_equal(label_frame(model, before[index], window), labels)
        # within what the codec loses
        assert np.abs(after[index].astype(int) - overlay).mean() < 8


def test_frames_are_reduced_for_the_model_alone(packed, clip, tmp_path):
    frame, model = generate_scene(0, (256, 256)).image[:64, :WIDTH + 2], packed.load()
    labels = label_frame(model, frame, long_side=50)
    assert labels.shape == frame.shape[:2] and len(np.unique(labels)) > 1
    small = cv2.resize(frame, (50, 32), interpolation=cv2.INTER_AREA)
    assert np.array_equal(cv2.resize(labels, (50, 32), interpolation=cv2.INTER_NEAREST),
                          model.segmentor.predict(small))
    assert predict_video(clip, packed, tmp_path / 'a.avi', long_side=50).written == FRAMES
    assert frames_of(tmp_path / 'a.avi')[0].shape == frames_of(clip)[0].shape


def test_broken_frames_are_counted_and_do_not_end_it(packed, clip, tmp_path):
    content = bytearray(clip.read_bytes())
    part = slice(len(content) // 2, len(content) // 2 + len(content) // 8)
    content[part] = np.random.default_rng(0).bytes(part.stop - part.start)
    broken, out = tmp_path / 'broken.mp4', tmp_path / 'new' / 'out.mkv'
    broken.write_bytes(content)
    report = predict_video(broken, packed, out)
    assert report.lost > 0 and report.labelled + report.lost == FRAMES
    assert len(frames_of(out)) == report.written == report.labelled


def test_a_stream_that_declares_no_length_is_read_to_its_end(packed, clip, tmp_path):
    stream = tmp_path / 'stream.mjpeg'
    stream.write_bytes(b''.join(
        cv2.imencode('.jpg', each)[1].tobytes() for each in frames_of(clip)))
    assert cv2.VideoCapture(str(stream)).get(cv2.CAP_PROP_FRAME_COUNT) <= 0
    report = predict_video(stream, packed, tmp_path / 'out.mp4')
    assert (report.labelled, report.lost) == (FRAMES, 0)
    assert len(frames_of(tmp_path / 'out.mp4')) == FRAMES


def test_an_interrupt_leaves_the_frames_so_far(packed, clip, tmp_path, monkeypatch):
    counts, threads = iter(range(100)), threading.active_count()

    def interrupt(*given):
        if next(counts) == 4:
            raise KeyboardInterrupt

    out = tmp_path / 'out.mp4'
    monkeypatch.setattr(video.WorkProgress, 'add', interrupt)
    with pytest.raises(KeyboardInterrupt):
        predict_video(clip, packed, out)
    assert len(frames_of(out)) == 5 and list(tmp_path.iterdir()) == [out]
    assert threading.active_count() == threads
    monkeypatch.setattr(video, 'draw_overlay', lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict_video(clip, packed, out, overwrite=True)
    assert len(frames_of(out)) == 5 and list(tmp_path.iterdir()) == [out]


def test_a_video_that_is_not_whole_is_not_kept(packed, clip, tmp_path, file_limit):
    with file_limit(5_000), pytest.raises(UserError, match=r'out\.mp4 could not be written.*free'):
        predict_video(clip, packed, tmp_path / 'out.mp4')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('size', [0, 1000, None])
def test_what_is_no_video_is_refused(size, packed, clip, tmp_path):
    name = tmp_path / 'given.mp4'
    name.write_bytes(b'no video\n' * 99 if size is None else clip.read_bytes()[:size])
    with pytest.raises(UserError, match=r'given\.mp4 is not a video'):
        predict_video(name, packed, tmp_path / 'out.mp4')
    assert list(tmp_path.iterdir()) == [name]


def test_of_a_camera_the_newest_frame_is_taken():
    taken, done = threading.Event(), threading.Event()

    def count():
        yield 0
        taken.wait()
        yield from range(1, 10)
        done.set()
        yield 10

    numbers = ahead(count(), newest=True)
    assert next(numbers) == 0
    taken.set()
    done.wait()
    assert list(numbers) in ([10], [9, 10])


def test_frames_of_a_camera_have_their_place_in_time(monkeypatch):
    class Camera:
        """25 frames per second, of which the second fails, read in 0.1 seconds each."""

        def __init__(self):
            self.clock, self.reads = 0.0, 0

        def get(self, what):
            return 25.0 if what == cv2.CAP_PROP_FPS else -1.0

        def read(self):
            self.clock, self.reads = self.clock + 0.1, self.reads + 1
            good = self.reads != 2 and self.reads <= 5
            return good, np.zeros((4, 4, 3), np.uint8) if good else None

    camera, report = Camera(), VideoReport()
    monkeypatch.setattr(video.time, 'monotonic', lambda: camera.clock)
    places = [frame.place for frame in read_frames(camera, '97', report)]
    assert places == [2, 7, 10, 12] and report.lost == 1
    assert camera.reads == 5 + video.PATIENCE + 1
