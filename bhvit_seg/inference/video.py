"""Prediction of a video or a camera to a video of overlays: frames are decoded, labelled and
encoded in a thread each. OpenCV does both ends, which whoever reads images has already."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bhvit_seg.datasets.image_io import cv2
from bhvit_seg.errors import UserError, explain_interrupt, free_space
from bhvit_seg.fileio import refuse_inputs, write_atomically
from bhvit_seg.inference.inputs import IMAGE_SUFFIXES, VIDEO_CODECS, is_camera
from bhvit_seg.inference.prediction import check_choices, draw_overlay, label
from bhvit_seg.inference.predictor import Predictor
from bhvit_seg.inference.source import ModelSource
from bhvit_seg.progress import WorkProgress

USUAL_RATE = 25.0  # frames per second of a camera that does not say
COUNTED = ('.mp4', '.m4v', '.mov', '.avi')  # others declare a duration, of the sound for one
PATIENCE = 30  # frames in a row that a camera may fail to give
# FFmpeg's decoders write a line for each damaged block.
os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')


@dataclass
class VideoReport:
    """Counts frames, and seconds: of all, and summed over the frames that were labelled."""

    labelled: int = 0
    written: int = 0  # of a camera more, since frames are repeated to play at its speed
    lost: int = 0  # not decodable
    seconds: float = 0.0
    model_seconds: float = 0.0
    waited_seconds: float = 0.0  # from when a frame was read until it was written

    def __str__(self) -> str:
        count = max(self.labelled, 1)
        return (f'{self.labelled / max(self.seconds, 1e-9):.1f} frames/s, '
                f'{1000 * self.model_seconds / count:.0f} ms a frame in the model, '
                f'{1000 * self.waited_seconds / count:.0f} ms from reading to writing it')


class _Frame(NamedTuple):
    place: int  # in the output
    read_at: float
    picture: np.ndarray  # (H, W, 3), red first
    model_seconds: float = 0.0


def predict_video(given: str | Path, source: ModelSource, out: str | Path, opacity: float = 0.5,
                  overwrite: bool = False, window: int | None = None, whole: bool = False,
                  long_side: int | None = None) -> VideoReport:
    """Draw the labels of a video over its frames, without its sound; a KeyboardInterrupt leaves a
    video of the frames so far.

    Args:
        given: A video file, or the number of a camera: it is read until an interrupt, and the
            frames that come while the model is busy are left out.
        out: A video file; its suffix chooses the codec.
        opacity, window, whole: See :func:`~bhvit_seg.inference.prediction.predict_files`.
        overwrite: Replace ``out``.
        long_side: Pixels of the longer side that frames are reduced to before they are labelled.
    """
    out = Path(out)
    check_choices(opacity, window, whole)
    if long_side is not None and long_side < 4:
        raise UserError(f'--long-side is {long_side}: give a number of pixels of at least 4')
    if out.suffix.lower() not in VIDEO_CODECS:
        raise UserError(f'--out is {out}, but what is made of {given} is a video: give a file that '
                        f'ends in {" or ".join(VIDEO_CODECS)}')
    refuse_inputs([out], [*source.files, *([] if is_camera(given) else [given])], '--out')
    if out.is_file() and not overwrite:
        raise UserError(f'{out} is there already: remove it, give another --out, or --overwrite')
    capture = open_capture(given)
    model = source.load(windows=window is not None)
    if model.channels != 3 or not model.eight_bit:
        raise UserError(f'{source.weights} is not a model of 8-bit colours alone, which a video '
                        'has: give a model of camera images')
    report, stopped = VideoReport(), None

    def draw(frames: Iterator[_Frame]) -> Iterator[_Frame]:
        with contextlib.closing(frames):
            for frame in frames:
                start = time.monotonic()
                labels = label_frame(model, frame.picture, window, whole, long_side)
                seconds = time.monotonic() - start
                yield frame._replace(model_seconds=seconds, picture=draw_overlay(
                    frame.picture, labels, model, opacity))

    def explain() -> str:
        return (f'the {report.labelled} frames so far are in {out}, which can be played'
                if report.labelled else 'no frame was labelled, and nothing is left behind')

    with explain_interrupt(explain), write_atomically(out) as partial:
        frames = ahead(draw(ahead(read_frames(capture, given, report),
                                  newest=is_camera(given))))
        try:
            write_frames(frames, capture, partial, report)
        except KeyboardInterrupt as error:
            if not report.labelled:
                raise
            stopped = error
        finally:
            frames.close()
            capture.release()
        if not report.labelled:
            raise UserError(f'no frame of {given} can be decoded: it is damaged, or of a codec '
                            'that OpenCV does not have')
        check_written(partial, out, report.written)
    if stopped is not None:
        raise stopped
    return report


def open_capture(given: str | Path) -> Any:
    """Open a video file or a camera, or raise a UserError."""
    if is_camera(given):
        capture = cv2.VideoCapture(int(given))
        if not capture.isOpened():
            raise UserError(f'no camera {given} can be opened: give the number of one that is '
                            'connected and not in use, such as 0, or a video file')
        return capture
    if not Path(given).is_file():
        raise UserError(f'no video at {given}: give a video file, or the number of a camera, such '
                        'as 0')
    capture = cv2.VideoCapture(str(given))
    if not capture.isOpened() or Path(given).suffix.lower() in IMAGE_SUFFIXES:
        raise UserError(f'{given} is not a video that OpenCV reads: it is empty, cut off, of an '
                        'unknown codec, or an image, whose --out is a folder')
    return capture


def frame_rate(capture: Any) -> float:
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if 1 <= rate <= 240 else USUAL_RATE


def read_frames(capture: Any, given: str | Path, report: VideoReport) -> Iterator[_Frame]:
    """Yield frames. A file may fail to give one and go on with the next: it ends at a failure
    after as many as it declares have been given or have failed."""
    live = is_camera(given)
    rate, declared = frame_rate(capture), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    start, count, failed = time.monotonic(), 0, 0
    while not failed or failed <= (PATIENCE if live else declared - count):
        ok, picture = capture.read()
        now = time.monotonic()
        if ok:
            yield _Frame(int((now - start) * rate) if live else count, now,
                         cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
            count += 1
            if live:
                report.lost, failed = report.lost + failed, 0
        failed += not ok
    if not live:
        slack = 0 if Path(given).suffix.lower() in COUNTED else rate / 2
        report.lost = declared - count if declared - count > slack else 0


def ahead(items: Iterator[Any], newest: bool = False) -> Iterator[Any]:
    """Yield what an iterator gives, which runs ahead in a thread; where the reader is too slow it
    waits or, with ``newest``, leaves out the oldest."""
    ready: queue.Queue = queue.Queue(1)
    ended, closing = object(), threading.Event()

    def work() -> None:
        last: Any = ended
        try:
            for item in items:
                while newest and ready.full():
                    with contextlib.suppress(queue.Empty):
                        ready.get_nowait()
                ready.put(item)
                if closing.is_set():
                    break
        except BaseException as error:
            last = error
        finally:
            items.close()
            ready.put(last)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not ended:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closing.set()
        while thread.is_alive():
            with contextlib.suppress(queue.Empty):
                ready.get_nowait()
            thread.join(0.01)


def label_frame(model: Predictor, picture: np.ndarray, window: int | None = None,
                whole: bool = False, long_side: int | None = None) -> np.ndarray:
    """Return the class ids ``(H, W)`` of ``(H, W, 3)`` uint8, red first."""
    height, width = picture.shape[:2]
    factor = min(1, (long_side or np.inf) / max(height, width))
    if factor < 1:
        size = max(4, round(width * factor)), max(4, round(height * factor))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    labels = label(model, model.prepare(picture), window, whole)[0].astype(np.uint8)
    return labels if factor == 1 else cv2.resize(labels, (width, height),
                                                 interpolation=cv2.INTER_NEAREST)


def write_frames(frames: Iterator[_Frame], capture: Any, path: Path, report: VideoReport) -> None:
    writer, start, size = cv2.VideoWriter(), time.monotonic(), (0, 0)
    total = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))) or None
    try:
        with WorkProgress('predicting', total, 'frames') as progress:
            for frame in frames:
                if not report.labelled:
                    size = frame.picture.shape[1::-1]
                    codec = cv2.VideoWriter_fourcc(*VIDEO_CODECS[path.suffix.lower()])
                    if not writer.open(str(path), codec, frame_rate(capture), size):
                        raise UserError(f'OpenCV cannot encode a video of {size[0]}x{size[1]} '
                                        f'pixels as {path.suffix}: give --out another suffix')
                picture = cv2.cvtColor(frame.picture, cv2.COLOR_RGB2BGR)
                if picture.shape[1::-1] != size:  # OpenCV would leave it out
                    picture = cv2.resize(picture, size)
                for _ in range(report.written, frame.place + 1):
                    writer.write(picture)
                    report.written += 1
                report.labelled += 1
                now = time.monotonic()
                report.seconds = now - start
                report.model_seconds += frame.model_seconds
                report.waited_seconds += now - frame.read_at
                progress.add(1, f'{1000 * (now - frame.read_at):.0f} ms latency')
    finally:
        writer.release()


def check_written(path: Path, out: Path, written: int) -> None:
    """Raise a UserError unless all frames can be found again: OpenCV reports no failed write."""
    check = cv2.VideoCapture(str(path))
    found = int(check.get(cv2.CAP_PROP_FRAME_COUNT))
    check.release()
    if found < written:
        raise UserError(f'{out} could not be written: {found} of {written} frames are in it; '
                        f'{free_space(out)}')
