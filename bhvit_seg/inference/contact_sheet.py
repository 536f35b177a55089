"""Contact sheets: images, ground truth and predictions side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bhvit_seg.fileio import write_atomically

MARGIN, HEADER = 8, 26
BACKGROUND, TEXT = (255, 255, 255), (30, 30, 30)


@dataclass
class SheetRow:
    """Pictures of one row, RGB arrays ``(H, W, 3)`` of one size; a caption for all or for each."""

    pictures: Sequence[np.ndarray]
    caption: str | Sequence[str]


def write_contact_sheet(path: str | Path, titles: Sequence[str], rows: Sequence[SheetRow],
                        headline: str) -> None:
    """Write a PNG with a column for each title.

    Args:
        path: The file to write.
        titles: What each column shows.
        rows: At least one row; each has a picture for every title.
        headline: Text above the table.
    """
    font = ImageFont.load_default(13)
    height, width = rows[0].pictures[0].shape[:2]
    columns = len(titles)
    sheet = Image.new('RGB', (columns * (width + MARGIN) + MARGIN,
                              2 * HEADER + len(rows) * (height + HEADER) + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 6), headline, TEXT, font)
    for column, title in enumerate(titles):
        draw.text((MARGIN + column * (width + MARGIN), HEADER + 6), title, TEXT, font)
    for index, row in enumerate(rows):
        top = 2 * HEADER + index * (height + HEADER)
        for column, picture in enumerate(row.pictures):
            sheet.paste(Image.fromarray(picture), (MARGIN + column * (width + MARGIN), top))
        captions = [row.caption] if isinstance(row.caption, str) else row.caption
        for column, caption in enumerate(captions):
            draw.text((MARGIN + column * (width + MARGIN), top + height + 4), caption, TEXT, font)
    with write_atomically(path) as partial:
        sheet.save(partial)
