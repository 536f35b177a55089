"""Configs (in a wheel in ``.mim/configs``, for ``mim``) and packed models (``zoo``) by name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from bhvit_seg.errors import UserError, similar_to

PACKAGE = Path(__file__).resolve().parent
PARTS = ('_base_', 'suites')  # parts and lists of configs; no command trains them
ZOO = PACKAGE / 'zoo'


def configs_folder() -> Path:
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
    """Return the path of a config, given as one or as a name, or raise a UserError."""
    path = Path(config)
    if path.is_file():
        return path
    by_name = config_paths() if len(path.parts) == 1 else {}
    name = path.name[:-3] if path.name.endswith('.py') else path.name
    if name in by_name:
        return by_name[name]
    raise UserError(f'no config at {config}{similar_to(name, by_name)}: give the path of a file or '
                    'a name that `bhvit-seg configs` lists')


def shipped_models() -> dict[str, dict[str, Any]]:
    """Return the index of shipped models by name; docs/models.md describes the entries."""
    return json.loads((ZOO / 'index.json').read_text('utf-8'))


def find_model(model: str | Path) -> Path:
    """Return the path of a packed model, given as one or as a name; checks the SHA-256."""
    models = shipped_models()
    if str(model) not in models:
        if Path(model).is_file():
            return Path(model)
        raise UserError(f'no model at {model}{similar_to(str(model), models)}: give the path of a '
                        'packed model, or a name that `bhvit-seg models` lists: '
                        f'{", ".join(models) or "none so far"}')
    path, expected = ZOO / models[str(model)]['file'], models[str(model)]['sha256']
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else 'none'
    if found != expected:
        raise UserError(f'the file {path} of the model {model} is missing or damaged (SHA-256 '
                        f'{found} instead of {expected}): install bhvit_seg again')
    return path


def model_card(model: str) -> str:
    """Return the Markdown card of a shipped model; a UserError if there is none."""
    models = shipped_models()
    if model not in models:
        raise UserError(f'no model {model} is shipped{similar_to(model, models)}: ' + (
            f'expected one of {", ".join(models)}' if models else 'this version brings none'))
    return (ZOO / f'{model}.md').read_text('utf-8')
