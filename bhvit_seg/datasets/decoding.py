"""Image, mask and raster files to arrays, or one sentence that names the file.

OpenCV and Pillow differ, also from version to version, in what they do with a file that ends too
early: an exception, nothing, or a picture whose lower part is grey. Every file is therefore looked
at for its end before it is decoded.
"""

from __future__ import annotations

import io
import os
import struct
import tokenize
import warnings
import zlib
from typing import NamedTuple

import cv2
import mmengine.fileio as fileio
import numpy as np
from PIL import Image, TiffImagePlugin

from bhvit_seg.errors import UserError

# What OpenCV has to say about a file we say ourselves; GeoTIFFs make it warn about every geo tag.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
JPEG_SIGNATURE = b'\xff\xd8'
TIFF_SIGNATURES = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
TIFF_BITS_PER_SAMPLE = 258
TIFF_PHOTOMETRIC = 262
TIFF_SAMPLES_PER_PIXEL = 277
TIFF_GDAL_NODATA = 42113
TIFF_COLOUR_PHOTOMETRICS = (2, 6)  # RGB, YCbCr
COLOUR_FLAGS = {
    'color': cv2.IMREAD_COLOR,
    'unchanged': cv2.IMREAD_UNCHANGED,
}


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
    content = _read_bytes(path, 'image', backend_args)
    if content.startswith(TIFF_SIGNATURES):
        tags = _tiff_tags(content, path, 'image')
        if color_type == 'unchanged':
            bands = _decode_tiff(content, tags, path, 'image')
            return np.ascontiguousarray(_swap_red_and_blue(bands)).reshape(*bands.shape[:2], -1)
        if tags.bits <= 8 and tags.samples > 2 and not tags.opencv_keeps_bands:
            return np.ascontiguousarray(_decode_tiff(content, tags, path, 'image')[..., 2::-1])
        if tags.bits > 8 or tags.samples == 2:
            raise UserError(f'image {path} has {tags.samples} bands of {tags.bits} bits, which '
                            "are no 8-bit colours: load it with color_type='unchanged' and give "
                            'data_preprocessor the mean and std of its bands')
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), COLOUR_FLAGS[color_type])
    except cv2.error as error:
        raise _undecodable(path, 'image', error.err) from error
    if image is None:
        raise _undecodable(path, 'image')
    return image if image.ndim == 3 else image[..., None]


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


def _read_bytes(path: str, kind: str, backend_args: dict | None) -> bytes:
    try:
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

    @property
    def opencv_keeps_bands(self) -> bool:
        """OpenCV multiplies colours by a fourth band, drops further ones, and mixes others."""
        return self.samples == 1 or (self.is_colour and self.samples == 3)

    @property
    def pillow_keeps_bands(self) -> bool:
        return self.samples == 4 and self.bits == 8 and self.is_colour


def _tiff_tags(content: bytes, path: str, kind: str) -> _TiffTags:
    """Bands a pixel, bits a band, and the nodata value that GDAL declares."""
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
            is_colour = directory.get(TIFF_PHOTOMETRIC) in TIFF_COLOUR_PHOTOMETRICS
            declared = directory.get(TIFF_GDAL_NODATA)
        nodata = None if declared is None else float(str(declared).strip('\0 '))
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error) as error:
        raise _undecodable(path, kind, str(error)) from error
    bits = max(bits) if isinstance(bits, tuple) else bits
    return _TiffTags(samples, bits, is_colour, nodata)


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


def _decode_with_pillow(content: bytes, path: str, kind: str, modes: dict | None = None
                        ) -> np.ndarray:
    """Decode a picture, first converted where ``modes`` gives another mode for its own."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(io.BytesIO(content)) as image:
                mode = (modes or {}).get(image.mode, image.mode)
                return np.asarray(image if mode == image.mode else image.convert(mode))
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
