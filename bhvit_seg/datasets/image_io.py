"""Image, mask and raster files to arrays, or one sentence that names the file.

OpenCV and Pillow differ, also from version to version, in what they do with a file that ends too
early: an exception, nothing, or a picture whose lower part is grey. Every file is therefore looked
at for its end before it is decoded.

NumPy, OpenCV and Pillow are all it needs: the packed model predicts where torch is not.
"""

from __future__ import annotations

import io
import os
import struct
import tokenize
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from bhvit_seg.errors import UserError

# What OpenCV has to say about a file we say ourselves; GeoTIFFs make it warn about every geo tag.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
JPEG_SIGNATURE = b'\xff\xd8'
TIFF_SIGNATURES = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
TIFF_BITS_PER_SAMPLE = 258
TIFF_PHOTOMETRIC = 262
TIFF_SAMPLES_PER_PIXEL = 277
TIFF_EXTRA_SAMPLES = 338
TIFF_GDAL_NODATA = 42113
TIFF_COLOUR_PHOTOMETRICS = (2, 6)  # RGB, YCbCr
TIFF_ALPHA = (1, 2)  # associated, unassociated
TIFF_RAW_PHOTOMETRICS = (1, 2)  # grey from black on, RGB: decoded to the values stored
PNG_COLOUR_TYPE_AT, PNG_ALPHA = 25, (4, 6)
ANY_MODE = '*'
COLOUR_FLAGS = {
    'color': cv2.IMREAD_COLOR,
    'unchanged': cv2.IMREAD_UNCHANGED,
}
# Which file is the LiDAR raster of an image, most wanted first.
LIDAR_SUFFIXES = ('.tif', '.tiff', '.npy', '.png')


def read_image(path: str, color_type: str = 'color', backend_args: dict | None = None
               ) -> np.ndarray:
    """Read a camera image.

    Args:
        path: PNG, JPEG or TIFF file.
        color_type: ``'color'``: three 8-bit channels, the EXIF orientation applied;
            ``'unchanged'``: every channel in the file's own dtype (TIFF files of bands that are no
            colours need rasterio).
        backend_args: Where mmengine reads files from.

    Returns:
        (H, W, C) in the order blue, green, red, further channels.

    Raises:
        UserError: The file is missing, truncated or not an image.
    """
    return read_image_and_gaps(path, color_type, backend_args)[0]


def read_image_and_gaps(path: str, color_type: str = 'color', backend_args: dict | None = None
                        ) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a camera image, and where it has no data.

    It has none where all bands are the nodata value that a TIFF file declares, and where any is NaN
    or infinite. ``'color'`` drops alpha, and there is no data where that is 0; ``'unchanged'``
    keeps every band as a channel, so that none is alpha. Where there is no data, the image has the
    mean of its other pixels, or 0 if there are none: a value that means nothing to a model.

    Args:
        path, color_type, backend_args: As for :func:`read_image`.

    Returns:
        The image, and (H, W) bool; None instead where it has data everywhere.

    Raises:
        UserError: As for :func:`read_image`.
    """
    content = _read_bytes(path, 'image', backend_args)
    gaps = None
    if content.startswith(TIFF_SIGNATURES):
        tags = _tiff_tags(content, path, 'image')
        if color_type == 'unchanged' or (
                tags.bits <= 8 and tags.samples > 2 and not tags.opencv_keeps_bands):
            bands = _decode_tiff(content, tags, path, 'image')
            bands = bands.reshape(*bands.shape[:2], -1)
            gaps = _gaps(bands, tags.nodata, tags.alpha if color_type == 'color' else None)
            image = bands[..., 2::-1] if color_type == 'color' else _swap_red_and_blue(bands)
            return _fill(np.ascontiguousarray(image), gaps), gaps
        if tags.bits > 8 or tags.samples == 2:
            raise UserError(f'image {path} has {tags.samples} bands of {tags.bits} bits, which '
                            "are no 8-bit colours: load it with color_type='unchanged' and give "
                            'data_preprocessor the mean and std of its bands')
    elif color_type == 'color' and _png_has_alpha(content):
        image = _decode_with_pillow(content, path, 'image', {ANY_MODE: 'RGBA'}, upright=True)
        gaps = _none_if_empty(image[..., 3] == 0)
        return _fill(np.ascontiguousarray(image[..., 2::-1]), gaps), gaps
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), COLOUR_FLAGS[color_type])
    except cv2.error as error:
        raise _undecodable(path, 'image', error.err) from error
    if image is None:
        raise _undecodable(path, 'image')
    image = image if image.ndim == 3 else image[..., None]
    if content.startswith(TIFF_SIGNATURES):
        gaps = _gaps(image, tags.nodata, None)
    return _fill(image, gaps), gaps


def _gaps(bands: np.ndarray, nodata: float | None, alpha: int | None) -> np.ndarray | None:
    """Where bands (H, W, C) have no data, by their nodata value and the number of the alpha band.
    """
    gaps = np.zeros(bands.shape[:2], bool)
    colours = bands if alpha is None else np.delete(bands, alpha, axis=2)
    if nodata is not None and not np.isnan(nodata):
        gaps |= (colours == np.float64(nodata).astype(
            bands.dtype if bands.dtype.kind == 'f' else np.float64)).all(2)
    if bands.dtype.kind == 'f':
        gaps |= ~np.isfinite(colours).all(2)
    if alpha is not None:
        gaps |= bands[..., alpha] == 0
    return _none_if_empty(gaps)


def _none_if_empty(gaps: np.ndarray) -> np.ndarray | None:
    return gaps if gaps.any() else None


def _fill(image: np.ndarray, gaps: np.ndarray | None) -> np.ndarray:
    """Put the mean of an image (H, W, C) where it has no data."""
    if gaps is None:
        return image
    rest = image[~gaps]
    mean = rest.mean(0, dtype=np.float64) if len(rest) else np.zeros(image.shape[2])
    image = image.copy()
    image[gaps] = mean.round() if image.dtype.kind in 'ui' else mean
    return image


def _png_has_alpha(content: bytes) -> bool:
    """Whether a PNG is transparent anywhere, by a channel of its own or by a colour."""
    return content.startswith(PNG_SIGNATURE) and (
        content[PNG_COLOUR_TYPE_AT] in PNG_ALPHA
        or b'tRNS' in content[:content.find(b'IDAT')])


def read_mask(path: str, backend_args: dict | None = None, colours: bool = False) -> np.ndarray:
    """Read a label mask.

    Args:
        path: PNG, TIFF or any file of one picture that Pillow reads.
        backend_args: Where mmengine reads files from.
        colours: Whether a palette image means its colours; otherwise it means its indices.

    Returns:
        (H, W) numbers or (H, W, 3) red, green, blue.

    Raises:
        UserError: The file is missing, truncated or not an image.
    """
    content = _read_bytes(path, 'mask', backend_args)
    to_rgb = ('RGBA', 'RGBX', 'CMYK', 'YCbCr', *(('P', 'PA') if colours else ()))
    mask = _decode_with_pillow(content, path, 'mask', {'1': 'L', **dict.fromkeys(to_rgb, 'RGB')})
    if mask.ndim == 3 and mask.shape[2] == 2:
        mask = mask[..., 0]
    return mask


def read_raster(path: str, backend_args: dict | None = None) -> tuple[np.ndarray, float | None]:
    """Read a raster of any number of channels.

    Args:
        path: ``.npy`` (H, W) or (H, W, C), PNG or TIFF file. TIFF files of several bands that
            are no colours need rasterio.
        backend_args: Where mmengine reads files from.

    Returns:
        The channels (H, W, C) in the order and dtype of the file, and the nodata value that a
        TIFF file declares.

    Raises:
        UserError: The file is missing, truncated, or no raster of numbers.
    """
    content = _read_bytes(path, 'LiDAR raster', backend_args)
    nodata = None
    if content.startswith(b'\x93NUMPY'):
        try:
            raster = np.load(io.BytesIO(content), allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:
            raise _undecodable(path, 'LiDAR raster', str(error)) from error
    elif content.startswith(TIFF_SIGNATURES):
        tags = _tiff_tags(content, path, 'LiDAR raster')
        raster, nodata = _decode_tiff(content, tags, path, 'LiDAR raster'), tags.nodata
    else:
        raster = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if raster is None:
            raise _undecodable(path, 'LiDAR raster')
        raster = _swap_red_and_blue(raster)
    if raster.ndim not in (2, 3) or raster.dtype.kind not in 'uifb':
        raise UserError(f'LiDAR raster {path} holds {raster.dtype} of shape {raster.shape}: '
                        'expected numbers of shape (height, width) or (height, width, channels)')
    return raster.reshape(*raster.shape[:2], -1), nodata


def read_lidar(path: str, channels: Sequence[int] | None = None, fill: float = 0.0,
               nodata: float | None = None, backend_args: dict | None = None) -> np.ndarray:
    """Read the channels of a LiDAR raster that a model sees.

    Args:
        path: See :func:`read_raster`.
        channels: Which channels of the raster, from 0; all by default.
        fill: What stands where the raster has no value: NaN, infinity or nodata.
        nodata: The raster's value for "nothing here", besides the one a GeoTIFF declares.
        backend_args: Where mmengine reads files from.

    Returns:
        (H, W, C) float32 without gaps.

    Raises:
        UserError: As for :func:`read_raster`, or a channel is missing.
    """
    raster, declared = read_raster(path, backend_args)
    if channels is not None:
        wrong = [c for c in channels if not 0 <= c < raster.shape[2]]
        if wrong:
            raise UserError(f'LiDAR raster {path} has no channel {wrong[0]}: it has '
                            f'{raster.shape[2]}, numbered from 0; correct '
                            'LoadLidarChannels.channels')
        raster = raster[..., channels]
    missing = np.zeros(raster.shape, bool)
    for value in (declared, nodata):
        if value is not None:
            missing |= raster == np.asarray(value, raster.dtype if raster.dtype.kind == 'f'
                                            else np.float64)
    raster = raster.astype(np.float32)
    raster[missing | ~np.isfinite(raster)] = fill
    return raster


def append_lidar(image: np.ndarray, image_path: str, raster: np.ndarray, raster_path: str
                 ) -> np.ndarray:
    """Return image and raster as one float32 array; the paths are for the message.

    Raises:
        UserError: They are not of one size.
    """
    if raster.shape[:2] != image.shape[:2]:
        raise UserError(
            f'LiDAR raster {raster_path} is {raster.shape[0]}x{raster.shape[1]} pixels (height x '
            f'width), its image {image_path} {image.shape[0]}x{image.shape[1]}: resample it to '
            'the grid of the image')
    image = image.reshape(*image.shape[:2], -1).astype(np.float32)
    return np.concatenate([image, raster], axis=2)


def _read_bytes(path: str, kind: str, backend_args: dict | None) -> bytes:
    try:
        if backend_args is None and '://' not in str(path):
            content = Path(path).read_bytes()
        else:
            import mmengine.fileio as fileio
            content = fileio.get(path, backend_args=backend_args)
    except OSError as error:
        reason = 'does not exist' if isinstance(error, FileNotFoundError) else (
            f'can not be read ({error.strerror or error})')
        raise UserError(f'{kind} {path} {reason}') from error
    if not content:
        raise UserError(f'{kind} {path} is empty (0 bytes): copy or export it again')
    if not _is_whole(content):
        raise UserError(f'{kind} {path} is truncated: its {len(content)} bytes end before the '
                        'picture does; copy or export it again')
    return content


def _is_whole(content: bytes) -> bool:
    """Whether a PNG's chunks or a JPEG's segments run to their end mark; other files are taken as
    they are, since their decoders tell."""
    if content.startswith(PNG_SIGNATURE):
        return _png_is_whole(content)
    if content.startswith(JPEG_SIGNATURE):
        return _jpeg_is_whole(content)
    return True


def _png_is_whole(content: bytes) -> bool:
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(content):
        end = at + 12 + int.from_bytes(content[at:at + 4], 'big')
        if end > len(content):
            return False
        if zlib.crc32(content[at + 4:end - 4]) != int.from_bytes(content[end - 4:end], 'big'):
            return False
        if content[at + 4:at + 8] == b'IEND':
            return True
        at = end
    return False


def _jpeg_is_whole(content: bytes) -> bool:
    # Segments are skipped up to the first scan: a thumbnail among them has an end mark of its own.
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        at += 2 + int.from_bytes(content[at + 2:at + 4], 'big')
        if marker == 0xDA:
            return content.rfind(b'\xff\xd9', at) >= 0
    return False


class _TiffTags(NamedTuple):
    samples: int
    bits: int
    is_colour: bool
    nodata: float | None
    alpha: int | None

    @property
    def opencv_keeps_bands(self) -> bool:
        """OpenCV multiplies colours by a fourth band, drops further ones, and mixes others."""
        return self.samples == 1 or (self.is_colour and self.samples == 3)

    @property
    def pillow_keeps_bands(self) -> bool:
        return self.samples == 4 and self.bits == 8 and self.is_colour


def _tiff_tags(content: bytes, path: str, kind: str) -> _TiffTags:
    """Bands a pixel, bits a band, the nodata value that GDAL declares, and which band is alpha."""
    header = 16 if content[2:4] in (b'+\0', b'\0+') else 8
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            directory = TiffImagePlugin.ImageFileDirectory_v2(content[:header])
            stream = io.BytesIO(content)
            stream.seek(directory.next)
            directory.load(stream)
            samples = directory.get(TIFF_SAMPLES_PER_PIXEL, 1)
            bits = directory.get(TIFF_BITS_PER_SAMPLE, 1)
            photometric = directory.get(TIFF_PHOTOMETRIC)
            extra = directory.get(TIFF_EXTRA_SAMPLES, ())
            declared = directory.get(TIFF_GDAL_NODATA)
        nodata = None if declared is None else float(str(declared).strip('\0 '))
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error) as error:
        raise _undecodable(path, kind, str(error)) from error
    bits = max(bits) if isinstance(bits, tuple) else bits
    if bits < 8 or photometric not in TIFF_RAW_PHOTOMETRICS:
        nodata = None  # a stored value, which is not what a palette or the like is decoded to
    extra = extra if isinstance(extra, tuple) else (extra,)
    alpha = next((samples - len(extra) + place for place, kind_of_band in enumerate(extra)
                  if kind_of_band in TIFF_ALPHA), None)
    return _TiffTags(samples, bits, photometric in TIFF_COLOUR_PHOTOMETRICS, nodata, alpha)


def _decode_tiff(content: bytes, tags: _TiffTags, path: str, kind: str) -> np.ndarray:
    """Return the bands in the file's order."""
    if tags.pillow_keeps_bands:
        return _decode_with_pillow(content, path, kind)
    if not tags.opencv_keeps_bands:
        return _decode_with_rasterio(content, path, kind, tags.samples)
    try:
        bands = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise _undecodable(path, kind, error.err) from error
    if bands is None:
        raise _undecodable(path, kind)
    return _swap_red_and_blue(bands)


def _decode_with_pillow(content: bytes, path: str, kind: str, modes: dict | None = None,
                        upright: bool = False) -> np.ndarray:
    """Decode a picture, first converted where ``modes`` gives another mode for its own or any.

    ``upright`` obeys the EXIF orientation.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(io.BytesIO(content)) as image:
                mode = (modes or {}).get(image.mode, (modes or {}).get(ANY_MODE, image.mode))
                picture = ImageOps.exif_transpose(image) if upright else image
                return np.asarray(picture if mode == image.mode else picture.convert(mode))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _undecodable(path, kind, str(error)) from error


def _decode_with_rasterio(content: bytes, path: str, kind: str, samples: int) -> np.ndarray:
    try:
        import rasterio
    except ImportError as error:
        raise UserError(f'{kind} {path} has {samples} bands, which need rasterio: '
                        'pip install rasterio, or save it as .npy') from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with rasterio.io.MemoryFile(content) as memory, memory.open() as dataset:
                return np.ascontiguousarray(dataset.read().transpose(1, 2, 0))
    except rasterio.errors.RasterioError as error:
        raise _undecodable(path, kind, str(error)) from error


def _swap_red_and_blue(image: np.ndarray) -> np.ndarray:
    if image.ndim == 3 and image.shape[2] >= 3:
        return np.concatenate([image[..., 2::-1], image[..., 3:]], axis=2)
    return image


def _undecodable(path: str, kind: str, reason: str = '') -> UserError:
    reason = ' '.join(reason.split())
    return UserError(f'{kind} {os.fspath(path)} can not be decoded'
                     f'{f" ({reason})" if reason else ""}: it is damaged, truncated or no '
                     'image; copy or export it again')
