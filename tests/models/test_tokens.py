"""Geometry of windows, by property, and attention inside sets of tokens."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bhvit_seg.models.token_mixers import attend
from bhvit_seg.models.tokens import tile

sides = st.integers(1, 30)


@given(sides, sides, st.integers(1, 9))
@settings(deadline=None)
def test_windows_cover_every_token_once_and_join_to_the_map(height, width, window):
    maps = torch.arange(2 * height * width * 3).view(2, height, width, 3)
    rows = tile(height, width, window)
    seen, joined = [], []
    for row in rows:
        parts = []
        for part in row:
            assert max(part.size) <= window
            windows = part.split(maps)
            assert windows.shape == (2, part.count, part.tokens, 3)
            seen.append(windows.flatten())
            parts.append(part.join(windows))
        joined.append(torch.cat(parts, 2))
    assert torch.equal(torch.cat(seen).sort()[0], maps.flatten())
    assert torch.equal(torch.cat(joined, 1), maps)
    count = sum(part.count for row in rows for part in row)
    assert count == -(-height // window) * -(-width // window)


def test_attention_is_that_of_torch_in_each_set():
    q, k, v = rows = [torch.randn(2 * 3 + 4, 8) for _ in range(3)]
    whole = attend(q, k, v, [(2, 3), (1, 4)], 2)
    for part, size in ((slice(0, 3), 3), (slice(3, 6), 3), (slice(6, 10), 4)):
        heads = [t[part].view(1, size, 2, 4).transpose(1, 2) for t in rows]
        expected = torch.nn.functional.scaled_dot_product_attention(*heads)
        torch.testing.assert_close(whole[part], expected.transpose(1, 2).reshape(size, 8))
