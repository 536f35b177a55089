"""mmengine's runner, given a checkpoint that was read already; and what a runner trains."""

from __future__ import annotations

from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from bhvit_seg.models.weights import check_fit, state_dict_of


def model_of(runner: Runner) -> nn.Module:
    """The model that is trained, without the wrapper of a distributed run."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


class ResumingRunner(Runner):
    """A runner that may be given the content of a checkpoint in place of its file.

    Checkpoints are large, and the content was read already to see that it is whole.

    Attributes:
        resumed: The checkpoint that :meth:`load_checkpoint` returns next; None: it reads a file.
    """

    resumed: dict[str, Any] | None = None

    def load_checkpoint(self, filename: str, *args, **kwargs) -> dict[str, Any]:
        """Load a checkpoint into the model, as ``Runner`` does; a given one has to fit exactly.

        Raises:
            UserError: The given one is of another model.
        """
        if self.resumed is None:
            return super().load_checkpoint(filename, *args, **kwargs)
        checkpoint, self.resumed = self.resumed, None
        model = model_of(self)
        check_fit(model, state_dict_of(checkpoint), filename)
        # Hooks may exchange weights and their moving average.
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        model.load_state_dict(state_dict_of(checkpoint))
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint
