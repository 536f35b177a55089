from __future__ import annotations

import numpy as np
import pytest

from benchmarks.suite.pictures import percent_right
from bhvit_seg.inference.contact_sheet import SheetRow, write_contact_sheet


def test_unlabelled_pixels_are_neither_right_nor_wrong():
    found, labels = np.array([[0, 1, 1, 1]]), np.array([[0, 1, 0, 255]])
    assert percent_right(found, labels, 2) == pytest.approx(100 * 2 / 3)
    assert np.isnan(percent_right(found, np.full((1, 4), 255), 2))


def test_each_picture_may_have_a_line(tmp_path):
    from PIL import Image

    def sheet(caption):
        picture = np.zeros((20, 100, 3), np.uint8)
        write_contact_sheet(tmp_path / 'sheet.png', ('a', 'b'),
                            [SheetRow([picture, picture], caption)], 'both')
        below = np.asarray(Image.open(tmp_path / 'sheet.png'))[74:98]
        return [(below[:, half] < 255).any() for half in (slice(0, 110), slice(110, None))]

    assert sheet('left') == [True, False] and sheet(('left', 'right')) == [True, True]
