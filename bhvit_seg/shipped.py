"""The configs that come with the package, found by their names.

A wheel carries them in ``bhvit_seg/.mim/configs``, where OpenMMLab's ``mim`` looks too; in a
checkout they are in ``configs``.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from bhvit_seg.errors import UserError

PACKAGE = Path(__file__).resolve().parent
# Parts and lists of configs; no command trains them.
PARTS = ('_base_', 'suites')


def configs_folder() -> Path:
    """Return the folder of the configs.

    Raises:
        UserError: It is missing from the installation.
    """
    for folder in (PACKAGE / '.mim' / 'configs', PACKAGE.parent / 'configs'):
        if (folder / '_base_').is_dir():
            return folder
    raise UserError(f'{PACKAGE} was installed without its configs: install it again, or give '
                    'configs by their paths')


def config_paths() -> dict[str, Path]:
    """Return the file of each config by its name, sorted by name."""
    folder = configs_folder()
    paths = [path for path in folder.rglob('*.py')
             if not set(path.relative_to(folder).parts) & set(PARTS)]
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}


def find_config(config: str | Path) -> Path:
    """Return the path of a config.

    Args:
        config: The path of a file, or the name of a config that comes with the package, with or
            without ``.py``.

    Raises:
        UserError: There is none; the message names the nearest ones.
    """
    path = Path(config)
    if path.is_file():
        return path
    by_name = config_paths() if len(path.parts) == 1 else {}
    name = path.name[:-3] if path.name.endswith('.py') else path.name
    if name in by_name:
        return by_name[name]
    near = difflib.get_close_matches(name, config_paths(), n=3)
    raise UserError(f'no config at {config}: give the path of a file or a name that `bhvit-seg '
                    'configs` lists' + (f', such as {", ".join(near)}' if near else ''))
