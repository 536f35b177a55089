"""A network so small that what hooks do to it can be computed by hand, and how it is trained."""

import contextlib
import copy
import itertools
import os

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from bhvit_seg.models.layers import BinaryConv2d, BinaryLinear

SCALE = 0.03
NUMBERS = itertools.count()


class Toy(BaseModel):
    """Two binary layers and a real one."""

    def __init__(self, binary: bool = True):
        super().__init__()
        torch.manual_seed(0)
        self.first = BinaryLinear(6, 5, binary=binary)
        self.second = BinaryConv2d(5, 3, 1, bias=False, binary=binary)
        self.last = nn.Linear(3, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        rows = self.first(torch.stack(list(inputs)))
        out = self.last(self.second(rows[:, :, None, None]).flatten(1))
        return dict(loss_toy=(out - 1).square().mean()) if mode == 'loss' else out


def script(iterations: int, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """Latent weights after each iteration: a random walk that crosses the thresholds often."""
    generator = torch.Generator().manual_seed(seed)
    walks = {name: torch.randn(iterations, *shape, generator=generator).mul(SCALE / 2).cumsum(0)
             for name, shape in (('first', (5, 6)), ('second', (3, 5, 1, 1)))}
    return [{name: walk[i] for name, walk in walks.items()} for i in range(iterations)]


class Script(Hook):
    """Sets the latent weights after each iteration, as an optimizer would."""

    priority = 'VERY_HIGH'

    def __init__(self, weights: list[dict[str, torch.Tensor]]) -> None:
        self.weights = weights

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        with torch.no_grad():
            for name, weight in self.weights[runner.iter].items():
                getattr(runner.model, name).weight.copy_(weight)


class Record(Hook):
    """Remember losses, weights, moments and decays of each iteration."""

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.outputs, self.weights, self.steps, self.decay = [], [], [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        optimizer = runner.optim_wrapper.optimizer
        self.outputs.append(dict(outputs))
        self.weights.append(copy.deepcopy(runner.model.state_dict()))
        self.steps.append({int(state.get('step', 0)) for state in optimizer.state.values()})
        self.decay.append([group['weight_decay'] for group in optimizer.param_groups])


def train(work_dir, iterations, hooks, model=None, optimizer=None, inputs=None,
          val_interval=1000, **settings) -> Runner:
    """Train the toy, or another model on its inputs; a checkpoint at every fourth iteration."""
    inputs = [dict(inputs=value) for value in (
        inputs or [torch.full((6,), float(i)) for i in range(4)])]
    runner = Runner(
        model or Toy(), work_dir=str(work_dir),
        train_dataloader=DataLoader(inputs, batch_size=2, sampler=InfiniteSampler(
            inputs, shuffle=False)),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations,
                       val_interval=val_interval),
        optim_wrapper=optimizer or dict(optimizer=dict(type='SGD', lr=0.0)),
        custom_hooks=list(hooks), default_scope='mmseg',
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')],
                        name=f'toy{os.getpid()}-{next(NUMBERS)}'),
        default_hooks=dict(logger=None, checkpoint=dict(
            type='CheckpointHook', by_epoch=False, interval=4)),
        experiment_name=f'toy{os.getpid()}-{next(NUMBERS)}', log_level='WARNING', **settings)
    runner.train()
    return runner


@contextlib.contextmanager
def group_of_one(folder):
    """A distributed run of one process, in which models can be wrapped."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/group', rank=0,
                                         world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
