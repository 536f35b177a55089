"""What the pixels of a mask file mean: ids, 0 and 255, grey above a threshold, or colours.

Decoding is explicit, never guessed file by file: a mask that is 255 all over is either all road
or all ignored, and only its maker knows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bhvit_seg.errors import UserError

IGNORE = 255
THRESHOLD = 128
NAMED_ENCODINGS = ('ids', 'binary255', 'threshold')
ANY_OTHER_COLOUR = '*'


class MaskEncoding:
    """Turns the pixels of a mask file into ids.

    Args:
        encoding: One of

            - ``'ids'``: pixels are ids, 255 is ignored;
            - ``'binary255'``: 0 is id 0, 255 is id 1, and nothing else occurs;
            - ``'threshold'``: grey from 128 on is id 1, below it is id 0 (masks that were
              resampled or saved as JPEG);
            - a dict from colours, written ``'#RRGGBB'``, to ids or class names; ``'ignore'`` and
              255 mean ignored; the entry ``'*'`` stands for every colour not named.
        classes: Class names that a dict of colours may use.

    Raises:
        UserError: ``encoding`` is none of these, or names a class that ``classes`` lacks.
    """

    def __init__(self, encoding: str | Mapping = 'ids', classes=()) -> None:
        self.colours = None
        self.other = None
        if isinstance(encoding, Mapping):
            self.name = 'colours'
            table = {str(key): _to_id(value, classes) for key, value in encoding.items()}
            self.other = table.pop(ANY_OTHER_COLOUR, None)
            self.colours = {_parse_colour(key): value for key, value in table.items()}
        elif encoding in NAMED_ENCODINGS:
            self.name = encoding
        else:
            raise UserError(f'mask_encoding={encoding!r} is unknown: give one of '
                            f"{', '.join(map(repr, NAMED_ENCODINGS))} or a dict from colours such "
                            "as '#FF0000' to class names")

    @property
    def reads_colours(self) -> bool:
        """Whether a palette image is to be read as its colours."""
        return self.colours is not None

    def decode(self, mask: np.ndarray, gaps: np.ndarray | None = None
               ) -> tuple[np.ndarray, dict[str, int]]:
        """Decode the pixels of one file.

        Args:
            mask: (H, W) numbers or (H, W, 3) red, green, blue, as :func:`read_mask` gives them.
            gaps: (H, W) bool, where the image has no data: whatever the mask has there is ignored.
                Without effect if it is of another size than the mask.

        Returns:
            Ids (H, W) uint8, and how many pixels have each value that the encoding does not
            know; those are 255 in the ids.
        """
        if gaps is not None and gaps.shape == mask.shape[:2]:
            whole = np.full(gaps.shape, IGNORE, np.uint8)
            ids, unknown = self.decode(mask[~gaps][:, None])
            whole[~gaps] = ids[:, 0]
            return whole, unknown
        if self.colours is not None:
            return self._decode_colours(mask)
        if mask.ndim == 3:
            if not (mask == mask[..., :1]).all():
                return _unknown_everywhere(mask, _pack(mask), '#{:06X}')
            mask = mask[..., 0]
        if self.name == 'threshold':
            return (mask >= THRESHOLD).astype(np.uint8), {}
        if self.name == 'binary255':
            ids = (mask == 255).astype(np.uint8)
            known = (mask == 0) | (mask == 255)
        elif mask.dtype == np.uint8:
            return mask, {}
        else:
            known = (mask >= 0) & (mask <= 255) & (mask == np.floor(mask))
            ids = np.where(known, mask, IGNORE).astype(np.uint8)
        return _mark_unknown(ids, known, mask, '{:g}')

    def _decode_colours(self, mask: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
        packed = _pack(mask if mask.ndim == 3 else np.repeat(mask[..., None], 3, axis=2))
        other = IGNORE if self.other is None else self.other
        ids = np.full(packed.shape, other, np.uint8)
        known = np.full(packed.shape, self.other is not None)
        for colour, label in self.colours.items():
            here = packed == colour
            ids[here] = label
            known |= here
        return _mark_unknown(ids, known, packed, '#{:06X}')


def label_table(reduce_zero_label: bool = False, label_map: Mapping | None = None) -> np.ndarray:
    """Return the (256,) uint8 table from ids in a file to the labels mmseg trains on.

    ``reduce_zero_label`` makes id 0 ignored and moves the others down by one; ``label_map``
    then renames labels.
    """
    table = np.arange(256, dtype=np.uint8)
    if reduce_zero_label:
        table = np.concatenate([[IGNORE], table[:254], [IGNORE]]).astype(np.uint8)
    if label_map:
        renamed = np.arange(256, dtype=np.uint8)
        for old, new in label_map.items():
            renamed[old] = new
        table = renamed[table]
    return table


def _mark_unknown(ids: np.ndarray, known: np.ndarray, values: np.ndarray, form: str
                  ) -> tuple[np.ndarray, dict[str, int]]:
    if known.all():
        return ids, {}
    ids = np.where(known, ids, IGNORE).astype(np.uint8)
    found, counts = np.unique(values[~known], return_counts=True)
    order = np.argsort(-counts, kind='stable')
    return ids, {form.format(found[i].item()): int(counts[i]) for i in order}


def _unknown_everywhere(mask: np.ndarray, values: np.ndarray, form: str
                        ) -> tuple[np.ndarray, dict[str, int]]:
    nothing = np.zeros(mask.shape[:2], bool)
    return _mark_unknown(np.full(mask.shape[:2], IGNORE, np.uint8), nothing, values, form)


def _pack(mask: np.ndarray) -> np.ndarray:
    red, green, blue = (mask[..., i].astype(np.int32) for i in range(3))
    return red << 16 | green << 8 | blue


def _parse_colour(text: str) -> int:
    digits = text[1:] if text.startswith('#') else text
    try:
        value = int(digits, 16)
    except ValueError:
        value = -1
    if len(digits) != 6 or value < 0:
        raise UserError(f"mask_encoding has the colour {text!r}: write it as '#RRGGBB', "
                        "for example '#FF0000' for red")
    return value


def _to_id(value: int | str, classes) -> int:
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
