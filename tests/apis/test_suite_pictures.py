from __future__ import annotations

import numpy as np

from bhvit_seg.apis.suite_pictures import colour_errors

PALETTE = [[0, 0, 0], [200, 100, 0]]


def test_errors_keep_their_colour_and_the_rest_is_pale():
    found, labels = np.array([[0, 1, 1, 0]]), np.array([[0, 1, 0, 255]])
    assert colour_errors(found, labels, PALETTE).tolist() == [
        [[191, 191, 191], [241, 216, 191], [200, 100, 0], [128, 128, 128]]]
