"""Image, mask and raster files to arrays, or one sentence that names the file.

OpenCV and Pillow differ, also from version to version, in what they do with a file that ends too
early: an exception, nothing, or a picture whose lower part is grey. Every file is therefore looked
at for its end before it is decoded.
"""

from __future__ import annotations

import io
import os
import warnings
import zlib

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
TIFF_SAMPLES_PER_PIXEL = 277
TIFF_GDAL_NODATA = 42113
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
            ``'unchanged'``: every channel in the file's own dtype.
        backend_args: Where mmengine reads files from.

    Returns:
        (H, W, C) in the order blue, green, red, further channels.

    Raises:
        UserError: The file is missing, truncated or not an image.
    """
    content = _read_bytes(path, 'image', backend_args)
    image = None
    if color_type == 'unchanged' and content.startswith(TIFF_SIGNATURES):
        bands, _ = _decode_tiff(content, path, 'image')
        return np.ascontiguousarray(_swap_red_and_blue(bands))
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), COLOUR_FLAGS[color_type])
    except cv2.error as error:
        raise _undecodable(path, 'image', error.err) from error
    if image is None:
        raise _undecodable(path, 'image')
    return image if image.ndim == 3 else image[..., None]


def read_mask(path: str, backend_args: dict | None = None) -> np.ndarray:
    """Read a label mask: (H, W) numbers, palette indices included, or (H, W, 3) red, green, blue.

    Raises:
        UserError: The file is missing, truncated or not an image.
    """
    content = _read_bytes(path, 'mask', backend_args)
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as image:
            warnings.simplefilter('ignore')
            if image.mode == '1':
                image = image.convert('L')
            elif image.mode in ('RGBA', 'RGBX', 'CMYK', 'YCbCr'):
                image = image.convert('RGB')
            mask = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _undecodable(path, 'mask', str(error)) from error
    if mask.ndim == 3 and mask.shape[2] == 2:
        mask = mask[..., 0]
    return mask


def read_raster(path: str, backend_args: dict | None = None) -> tuple[np.ndarray, float | None]:
    """Read a raster of any number of channels.

    Args:
        path: ``.npy`` (H, W) or (H, W, C), PNG or TIFF file. TIFF files of 2 or more than 4
            channels need rasterio.
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
        except (OSError, ValueError, EOFError) as error:
            raise _undecodable(path, 'LiDAR raster', str(error)) from error
    elif content.startswith(TIFF_SIGNATURES):
        raster, nodata = _decode_tiff(content, path, 'LiDAR raster')
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


def _decode_tiff(content: bytes, path: str, kind: str) -> tuple[np.ndarray, float | None]:
    """Return the bands in the file's order and the nodata value GDAL declared."""
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(content[:16] if content[2] == 43
                                                          else content[:8])
        stream = io.BytesIO(content)
        stream.seek(directory.next)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            directory.load(stream)
            samples = directory.get(TIFF_SAMPLES_PER_PIXEL, 1)
            declared = directory.get(TIFF_GDAL_NODATA)
    except (OSError, SyntaxError, ValueError, KeyError) as error:
        raise _undecodable(path, kind, str(error)) from error
    nodata = None if declared is None else float(str(declared).strip('\0 '))
    if samples in (1, 3, 4):
        try:
            bands = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise _undecodable(path, kind, error.err) from error
        if bands is None:
            raise _undecodable(path, kind)
        return _swap_red_and_blue(bands), nodata
    return _decode_with_rasterio(content, path, kind, samples), nodata


def _decode_with_rasterio(content: bytes, path: str, kind: str, samples: int) -> np.ndarray:
    try:
        import rasterio
    except ImportError as error:
        raise UserError(f'{kind} {path} has {samples} bands, which OpenCV can not read: '
                        'pip install rasterio, or save it as .npy') from error
    try:
        with warnings.catch_warnings(), rasterio.io.MemoryFile(content) as memory:
            warnings.simplefilter('ignore')
            with memory.open() as dataset:
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
