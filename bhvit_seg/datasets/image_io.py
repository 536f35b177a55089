"""Decode image, mask and raster files, or raise one sentence that names the file.

rasterio reads TIFF files, OpenCV reads PNG, JPEG, WebP and BMP files, Pillow reads masks and
transparent images. OpenCV returns a damaged file as a partly grey image; so PNG checksums are
verified first, and libjpeg's messages are read.
"""

from __future__ import annotations

import contextlib
import io
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bhvit_seg.datasets.decoder_messages import (
    collect_stderr,
    find_zeroed_part,
    gdal_damage_as_error,
    loses_pixels,
)
from bhvit_seg.errors import UserError
from bhvit_seg.extras import missing_package
from bhvit_seg.fileio import write_atomically

try:
    import cv2
    from PIL import Image, ImageOps, UnidentifiedImageError
except ModuleNotFoundError as error:
    raise UserError(f'reading image files needs {error.name}: pip install opencv-python-headless '
                    'pillow') from error

# Damage is reported by this module; OpenCV warns about every tag of GeoTIFFs.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
JPEG_SIGNATURE = b'\xff\xd8'
TIFF_SIGNATURES = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
PILLOW_MODES = {'1': 'L', **dict.fromkeys(('RGBA', 'RGBX', 'CMYK', 'YCbCr', 'LAB'), 'RGB')}
PNG_BITS_AT = 24
COLOUR_FLAGS = {'color': cv2.IMREAD_COLOR, 'unchanged': cv2.IMREAD_UNCHANGED}


def read_image(path: str, color_type: str = 'color', backend_args: dict | None = None
               ) -> np.ndarray:
    """Like :func:`read_pixels`, but the image alone, in mmseg's order blue, green, red, others."""
    return swap_red_and_blue(read_pixels(path, color_type, backend_args)[0])


def read_pixels(path: str, color_type: str = 'color', backend_args: dict | None = None
                ) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a camera image and the mask of its pixels without data, which get the mean of the
    others.

    A pixel has no data where all bands equal the nodata value of a TIFF file, where any band is NaN
    or infinite, and, for ``'color'``, where alpha is 0.

    Args:
        path: PNG, JPEG, TIFF, WebP or BMP file.
        color_type: ``'color'``: three 8-bit channels without alpha, rotated by the EXIF orientation
            (PNG, JPEG, WebP); ``'unchanged'``: every band as stored, in its own dtype.
        backend_args: Storage backend of mmengine.

    Returns:
        The image (H, W, C), red, green, blue first, and the mask (H, W) bool, or None without gaps.

    Raises:
        UserError: The file is missing, damaged, not an image, or has no 8-bit colours for
            ``'color'``.
    """
    content = _read_bytes(path, 'image', backend_args)
    colour = color_type == 'color'
    gaps = None
    if content.startswith(TIFF_SIGNATURES):
        tiff = _read_tiff(content, path, 'image')
        image = tiff.values
        if tiff.is_coded:
            image = _decode_with_pillow(content, path, 'image', 'RGB')
        else:
            gaps = _find_gaps(image, tiff.nodata, tiff.alpha if colour else None)
        if colour:
            if image.shape[2] == 2 and tiff.alpha == 1:
                image = image[..., :1]
            if image.dtype != np.uint8:
                raise _no_colours(path, f'{image.dtype} values in each of its bands')
            if image.shape[2] == 2:
                raise _no_colours(path, '2 bands')
            image = np.repeat(image, 3, 2) if image.shape[2] == 1 else image[..., :3]
    elif colour and content.startswith(PNG_SIGNATURE) and content[PNG_BITS_AT:][:1] == b'\x10':
        raise _no_colours(path, 'uint16 values in each of its bands')
    elif colour and _has_alpha(content, path):
        image = _decode_with_pillow(content, path, 'image', 'RGBA', upright=True)
        image, gaps = image[..., :3], image[..., 3] == 0
    else:
        image = _decode_with_opencv(content, path, 'image', color_type)
    if image.dtype.kind not in 'uif':
        raise UserError(f'image {path} has {image.dtype} values: save it as integers or floats')
    return fill_gaps(np.ascontiguousarray(image), gaps)


def swap_red_and_blue(image: np.ndarray) -> np.ndarray:
    """Exchange the first and the third channel of ``(..., C)``, where there are three."""
    if image.shape[-1] < 3:
        return image
    return np.ascontiguousarray(image[..., [2, 1, 0, *range(3, image.shape[-1])]])


def read_mask(path: str, backend_args: dict | None = None, colours: bool = False) -> np.ndarray:
    """Read a label mask: (H, W) numbers, or (H, W, 3) red, green, blue.

    ``colours`` says that a palette image means its colours instead of its indices.

    Raises:
        UserError: The file is missing, damaged or not an image.
    """
    content = _read_bytes(path, 'mask', backend_args)
    tiff = _read_tiff(content, path, 'mask') if content.startswith(TIFF_SIGNATURES) else None
    if tiff is None or tiff.is_coded:
        mask = np.atleast_3d(_decode_with_pillow(content, path, 'mask', 'RGB' if colours else None))
    else:
        mask = tiff.values
    return mask[..., 0] if mask.shape[2] < 3 else mask[..., :3]


def write_labels(path: str | Path, labels: np.ndarray,
                 palette: Sequence[Sequence[int]] | None = None) -> None:
    """Write class ids (H, W), 0 to 255, as a PNG, with a palette (RGB for each id) for viewers."""
    if labels.max(initial=0) > 255:
        raise UserError(f'{path} cannot hold the class id {labels.max()}: an 8-bit label map has '
                        'ids up to 255')
    picture = Image.fromarray(np.ascontiguousarray(labels, np.uint8))
    if palette:
        picture.putpalette(np.asarray(palette, np.uint8).tobytes())
    with write_atomically(path) as partial:
        picture.save(partial)


def read_raster(path: str, backend_args: dict | None = None) -> tuple[np.ndarray, float | None]:
    """Read a ``.npy`` (H, W) or (H, W, C), PNG or TIFF file.

    Returns:
        The channels (H, W, C) as stored, and the nodata value that a TIFF file declares.

    Raises:
        UserError: The file is missing, damaged, or not a raster of numbers.
    """
    kind = 'LiDAR raster'
    content = _read_bytes(path, kind, backend_args)
    nodata = None
    if content.startswith(b'\x93NUMPY'):
        try:
            raster = np.load(io.BytesIO(content), allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:
            raise _undecodable(path, kind, str(error)) from error
    elif content.startswith(TIFF_SIGNATURES):
        tiff = _read_tiff(content, path, kind)
        raster, nodata = tiff.values, tiff.nodata
    else:
        raster = _decode_with_opencv(content, path, kind, 'unchanged')
    if raster.ndim not in (2, 3) or raster.dtype.kind not in 'uifb':
        raise UserError(f'{kind} {path} holds {raster.dtype} of shape {raster.shape}: '
                        'expected numbers of shape (height, width) or (height, width, channels)')
    return raster.reshape(*raster.shape[:2], -1), nodata


def equals_declared(values: np.ndarray, value: float) -> np.ndarray:
    """Return where values equal a declared one, such as nodata, in the precision of the file."""
    return values == np.float64(value).astype(
        values.dtype if values.dtype.kind == 'f' else np.float64)


def _find_gaps(bands: np.ndarray, nodata: float | None, alpha: int | None) -> np.ndarray:
    if alpha is not None:
        return _find_gaps(np.delete(bands, alpha, 2), nodata, None) | (bands[..., alpha] == 0)
    gaps = ~np.isfinite(bands).all(2)
    if nodata is not None and not np.isnan(nodata):
        gaps |= equals_declared(bands, nodata).all(2)
    return gaps


def fill_gaps(image: np.ndarray, gaps: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Set pixels without data to the others' mean, in place; return image and gaps or None."""
    if gaps is None or not gaps.any():
        return image, None
    rest = image[~gaps]
    mean = rest.mean(0, dtype=np.float64) if len(rest) else np.zeros(image.shape[2])
    image[gaps] = mean.round() if image.dtype.kind in 'ui' else mean
    return image, gaps


def _read_bytes(path: str, kind: str, backend_args: dict | None) -> bytes:
    try:
        if backend_args is None and '://' not in str(path):
            content = Path(path).read_bytes()
        else:
            import mmengine.fileio as fileio
            content = fileio.get(path, backend_args=backend_args)
    except OSError as error:
        reason = 'does not exist' if isinstance(error, FileNotFoundError) else (
            f'cannot be read ({error.strerror or error})')
        raise UserError(f'{kind} {path} {reason}') from error
    if not content:
        raise UserError(f'{kind} {path} is empty (0 bytes): copy or export it again')
    return content


def _has_alpha(content: bytes, path: str) -> bool:
    if not content.startswith((PNG_SIGNATURE, b'RIFF')):
        return False
    with _open_with_pillow(content, path, 'image') as image:
        return image.has_transparency_data


class _Tiff(NamedTuple):
    """The bands of a TIFF file, (H, W, C) as stored, and what the file says about them."""

    values: np.ndarray
    nodata: float | None
    alpha: int | None  # the place of that band
    is_coded: bool  # not brightnesses: a palette, white as 0, or less than 8 bits


def _read_tiff(content: bytes, path: str, kind: str) -> _Tiff:
    try:
        import rasterio
    except ImportError as error:
        raise UserError(f'{kind} {path} needs {missing_package("rasterio")}') from error
    from rasterio.enums import ColorInterp

    try:
        with warnings.catch_warnings(), rasterio.io.MemoryFile(content) as memory:
            warnings.simplefilter('ignore')
            with memory.open() as dataset, gdal_damage_as_error():
                values = np.ascontiguousarray(dataset.read().transpose(1, 2, 0))
                colours = dataset.colorinterp
                tags = dataset.tags(1, ns='IMAGE_STRUCTURE') | dataset.tags(ns='IMAGE_STRUCTURE')
                alpha = colours.index(ColorInterp.alpha) if ColorInterp.alpha in colours else None
                return _Tiff(values, dataset.nodata, alpha, ColorInterp.palette in colours
                             or 'MINISWHITE' in tags or int(tags.get('NBITS', 8)) < 8)
    except rasterio.errors.RasterioError as error:
        raise _undecodable(path, kind, str(error.__cause__ or error)) from error


def _decode_with_pillow(content: bytes, path: str, kind: str, mode: str | None = None,
                        upright: bool = False) -> np.ndarray:
    """Decode to a mode, by default numbers or RGB without a palette; ``upright``: by EXIF."""
    with _open_with_pillow(content, path, kind) as image:
        picture = ImageOps.exif_transpose(image) if upright else image
        mode = mode or PILLOW_MODES.get(image.mode, image.mode)
        return np.asarray(picture if mode == image.mode else picture.convert(mode))


@contextlib.contextmanager
def _open_with_pillow(content: bytes, path: str, kind: str) -> Iterator[Image.Image]:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # aerial images are large
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(io.BytesIO(content)) as image:
                yield image
    except UnidentifiedImageError as error:  # its message is the address of the bytes
        raise _undecodable(path, kind) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise _undecodable(path, kind, str(error)) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _decode_with_opencv(content: bytes, path: str, kind: str, color_type: str) -> np.ndarray:
    """Decode a picture to (H, W, C), red first."""
    if content.startswith(PNG_SIGNATURE):
        with _open_with_pillow(content, path, kind) as image:
            image.verify()
    image, reason = None, ''
    with collect_stderr() as lines:
        try:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), COLOUR_FLAGS[color_type])
        except cv2.error as error:
            reason = error.err
    if content.startswith(JPEG_SIGNATURE):
        damage = [line for line in lines if loses_pixels(line, content)]
        reason = damage[0] if damage else find_zeroed_part(content) or reason
    if image is None or reason:
        raise _undecodable(path, kind, reason)
    return swap_red_and_blue(image.reshape(*image.shape[:2], -1))


def _no_colours(path: str, what: str) -> UserError:
    return UserError(f'image {path} has {what}, not 8-bit colours: save it in 8 bits, or load it '
                     "with color_type='unchanged' and give data_preprocessor the mean and std of "
                     'its channels')


def _undecodable(path: str, kind: str, reason: str = '') -> UserError:
    reason = ' '.join(reason.split())
    if 'truncated' in reason.lower() or 'Premature end of JPEG file' in reason:
        return UserError(f'{kind} {path} is truncated ({reason}): copy or export it again')
    return UserError(f'{kind} {path} cannot be decoded{f" ({reason})" if reason else ""}: it is '
                     'damaged, truncated or not an image; copy or export it again')
