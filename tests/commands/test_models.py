from bhvit_seg.commands.models import plain_text

CARD = """# Roads

<!-- measured -->

| | |
|---|---|
| file | `a.bhv` |
| data | [a set](https://host/set), **free** |

<!-- end -->

![worst
images](a.jpg)

- Forest: see [there](b.md).
"""


def test_a_card_is_printed_as_plain_text():
    assert plain_text(CARD) == """Roads

file  a.bhv
data  a set (https://host/set), free

- Forest: see there (b.md)."""
