"""The checkpoint that a training goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bhvit_seg.errors import UserError
from bhvit_seg.models.weights import load_checkpoint_safely


def find_resumable(work_dir: str | Path
                   ) -> tuple[Path | None, dict[str, Any] | None, list[str]]:
    """Find the newest whole checkpoint of a training.

    The one that ``last_checkpoint`` names comes first, by its name in ``work_dir`` if the folder
    was moved, then those named by iteration, newest first.

    Returns:
        The file and its content, both None if there is none, and a sentence for each file that
        was passed over.
    """
    work_dir = Path(work_dir)
    candidates = []
    pointer = work_dir / 'last_checkpoint'
    if pointer.is_file() and pointer.read_text().strip():
        named = Path(pointer.read_text().strip())
        candidates.append(named if named.is_file() else work_dir / named.name)
    numbered = [(int(path.stem.split('_')[1]), path) for path in work_dir.glob('iter_*.pth')
                if path.stem.split('_')[1].isdigit()]
    candidates += [path for _, path in sorted(numbered, reverse=True) if path not in candidates]
    passed_over = []
    for path in candidates:
        try:
            return path, load_checkpoint_safely(path), passed_over
        except UserError as error:
            passed_over.append(str(error))
    return None, None, passed_over
