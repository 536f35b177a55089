"""Hooks of MkDocs: docstrings name other objects as Sphinx does."""

import re

ROLE = re.compile(r':(?:attr|class|data|func|meth|mod):<code>(~?)([\w.]+)</code>')


def on_page_content(html: str, **_) -> str:
    return ROLE.sub(
        lambda found: f'<code>{found[2].rpartition(".")[2] if found[1] else found[2]}</code>', html)
