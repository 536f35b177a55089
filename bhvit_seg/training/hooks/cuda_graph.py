"""A training step as one CUDA graph."""

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from bhvit_seg.errors import UserError
from bhvit_seg.models.backbones.bhvit import BHViT


@HOOKS.register_module()
class CudaGraphHook(Hook):
    """Replay forward and backward pass of the backbone in training as a CUDA graph.

    They are several thousand small kernels, whose launches one by one take most of the time. For a
    :class:`BHViT` on one GPU, with batches of one shape (the data preprocessor's ``size``) and
    without ``with_cp``; without effect on a CPU.

    Args:
        begin: Iteration of this run after which the graph is captured; earlier ones initialize
            step sizes of attention and choose algorithms.

    Raises:
        UserError: Before training: the backbone is of another kind, recomputes blocks, or the run
            is distributed.
    """

    def __init__(self, begin: int = 3) -> None:
        self.left = begin
        self._inputs: Tensor | None = None

    def before_train(self, runner: Runner) -> None:
        backbone = getattr(runner.model, 'backbone', None)
        problem = ('the run is distributed' if runner.distributed else
                   f'the backbone is a {type(backbone).__name__}, not a BHViT'
                   if not isinstance(backbone, BHViT) else
                   'with_cp=True recomputes blocks' if backbone.with_cp else None)
        if problem:
            raise UserError(f'CudaGraphHook cannot capture the training step, since {problem}: '
                            'leave the hook out')
        if not torch.cuda.is_available():
            self.left = -1

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        # Between iterations, when no autograd graph holds nodes of the ordinary stream.
        if self._inputs is not None:
            self._capture(runner)
        elif self.left == 0:
            self._handle = runner.model.backbone.register_forward_pre_hook(self._keep)
        self.left -= 1

    def _keep(self, module, args) -> None:
        self._inputs = args[0].detach()
        self._handle.remove()

    def _capture(self, runner: Runner) -> None:
        backbone, inputs, self._inputs = runner.model.backbone, self._inputs.clone(), None
        state = {name: value.clone() for name, value in backbone.state_dict().items()}
        amp = type(runner.optim_wrapper).__name__ == 'AmpOptimWrapper'
        with torch.autocast('cuda', enabled=amp, cache_enabled=False):
            torch.cuda.make_graphed_callables(backbone, (inputs,), allow_unused_input=True)
        with torch.no_grad():  # capturing has changed the running statistics
            for name, value in backbone.state_dict().items():
                value.copy_(state[name])
        runner.logger.info(f'the backbone is a CUDA graph from iteration {runner.iter + 1} on, for '
                           f'batches of {tuple(inputs.shape)}')
