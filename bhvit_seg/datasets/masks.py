"""Mask encodings, which are explicit: a mask of 255 only may be all road or all ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from bhvit_seg.errors import UserError

IGNORE = 255
THRESHOLD = 128
NAMED_ENCODINGS = ('ids', 'binary255', 'threshold')
ANY_OTHER_COLOUR = '*'


class MaskEncoding:
    """Decodes mask pixels to ids.

    Args:
        encoding: ``'ids'`` (255 is ignored); ``'binary255'`` (0 is id 0, 255 is id 1);
            ``'threshold'`` (grey from 128 on is id 1, for masks that were resampled or saved as
            JPEG); or a dict from colours ``'#RRGGBB'`` (``'*'``: any other colour) to ids, class
            names or ``'ignore'``.
        classes: Class names that a dict of colours may use.

    ``reads_colours`` says whether a palette image is to be read as its colours.
    """

    def __init__(self, encoding: str | Mapping = 'ids', classes: Sequence[str] = ()) -> None:
        self.reads_colours = isinstance(encoding, Mapping)
        self.name = 'colours' if self.reads_colours else encoding
        if self.reads_colours:
            table = {str(key): _to_id(value, classes) for key, value in encoding.items()}
            self._other = table.pop(ANY_OTHER_COLOUR, None)
            self._colours = {_parse_colour(key): value for key, value in table.items()}
        elif encoding not in NAMED_ENCODINGS:
            raise UserError(f'mask_encoding={encoding!r} is unknown: give one of '
                            f"{', '.join(map(repr, NAMED_ENCODINGS))} or a dict from colours such "
                            "as '#FF0000' to class names")

    def decode(self, mask: np.ndarray, gaps: np.ndarray | None = None
               ) -> tuple[np.ndarray, dict[str, int]]:
        """Decode a mask (H, W) or (H, W, 3), red, green, blue, of :func:`read_mask`.

        Pixels in ``gaps`` (H, W) bool, where the image has no data, are ignored.

        Returns:
            Ids (H, W) uint8, and the number of pixels of each unknown value, which become 255.
        """
        if gaps is not None and gaps.shape == mask.shape[:2]:
            whole = np.full(gaps.shape, IGNORE, np.uint8)
            ids, unknown = self.decode(mask[~gaps][:, None])
            whole[~gaps] = ids[:, 0]
            return whole, unknown
        coloured = mask.ndim == 3 and not (mask == mask[..., :1]).all()
        if self.reads_colours or coloured:
            bands = np.broadcast_to(np.atleast_3d(mask), (*mask.shape[:2], 3)).astype(np.int32)
            red, green, blue = np.moveaxis(bands, 2, 0)
            mask, form = red << 16 | green << 8 | blue, '#{:06X}'
        else:
            mask, form = mask if mask.ndim == 2 else mask[..., 0], '{:g}'
        if self.reads_colours:
            ids = np.full(mask.shape, IGNORE if self._other is None else self._other, np.uint8)
            known = np.full(mask.shape, self._other is not None)
            for colour, id_ in self._colours.items():
                ids[mask == colour] = id_
                known |= mask == colour
        elif coloured:
            ids, known = np.zeros(mask.shape, np.uint8), np.zeros(mask.shape, bool)
        elif self.name == 'threshold':
            return (mask >= THRESHOLD).astype(np.uint8), {}
        elif self.name == 'binary255':
            ids, known = (mask == 255).astype(np.uint8), (mask == 0) | (mask == 255)
        elif mask.dtype == np.uint8:
            return mask, {}
        else:
            known = (mask >= 0) & (mask <= 255) & (mask == np.floor(mask))
            ids = np.where(known, mask, 0).astype(np.uint8)
        if known.all():
            return ids, {}
        values, counts = np.unique(mask[~known], return_counts=True)
        return np.where(known, ids, np.uint8(IGNORE)), {
            form.format(values[i].item()): int(counts[i])
            for i in np.argsort(-counts, kind='stable')}


def label_table(reduce_zero_label: bool = False, label_map: Mapping | None = None) -> np.ndarray:
    """Return the (256,) uint8 table from ids in a file to mmseg's labels."""
    table = renamed = np.arange(256, dtype=np.uint8)
    if reduce_zero_label:
        table = np.array([IGNORE, *range(254), IGNORE], np.uint8)
    if label_map:
        renamed = renamed.copy()
        renamed[list(label_map)] = list(label_map.values())
    return renamed[table]


def _parse_colour(text: str) -> int:
    if not re.fullmatch('#?[0-9A-Fa-f]{6}', text):
        raise UserError(f"mask_encoding has the colour {text!r}: write it as '#RRGGBB', "
                        "for example '#FF0000' for red")
    return int(text[-6:], 16)


def _to_id(value: int | str, classes: Sequence[str]) -> int:
    if value == 'ignore':
        return IGNORE
    if isinstance(value, str):
        if value not in classes:
            raise UserError(f'mask_encoding names the class {value!r}: expected one of '
                            f"{', '.join(map(repr, classes))} or 'ignore'")
        return list(classes).index(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= IGNORE:
        raise UserError(f'mask_encoding has the id {value!r}: expected 0..255 or a class name')
    return value
