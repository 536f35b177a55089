"""The stages in mmengine's runner: what is binary and what moves.

That a resumed run equals an uninterrupted one is in tests/training/test_recipe.py.
"""

from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from torch import nn
from torch.utils.data import DataLoader

from bhvit_seg.errors import UserError
from bhvit_seg.training.hooks import TrainingStagesHook

from . import toy

ITERATIONS = 10


class Record(toy.Record):
    """Remember whether latent weights have a gradient when gradients are clipped, too."""

    def before_train(self, runner):
        self.at_clipping, clip = [], runner.optim_wrapper._clip_grad

        def look_and_clip():
            self.at_clipping.append(bool(runner.model.first.weight.grad.any()))
            clip()

        runner.optim_wrapper._clip_grad = look_and_clip


class Nothing(BaseMetric):

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {}


def train(work_dir, hook, optimizer=None, val_interval=1000, hooks=(), **wrapper):
    record, model = Record(), toy.Toy()
    model.calls = []
    model.register_forward_pre_hook(lambda _, args, given: model.calls.append(
        (given['mode'], model.first.binarize_weights)), with_kwargs=True)
    inputs = [torch.randn(6) for _ in range(8)]
    validation = dict(
        val_dataloader=DataLoader([dict(inputs=value) for value in inputs], batch_size=8),
        val_cfg=dict(type='ValLoop'), val_evaluator=Evaluator(Nothing())
    ) if val_interval < 1000 else {}
    toy.train(work_dir, ITERATIONS, [hook, record, *hooks], model, dict(
        optimizer=optimizer or dict(type='AdamW', lr=0.1, weight_decay=0.2), **wrapper), inputs,
        val_interval, **validation)
    return model, record


@pytest.mark.parametrize('begins, first_binary', [
    ((0.4, 0.9), 4), ((0., 1.), 0), ((0.35, 0.5), 4), ((1., 1.), 10)])
def test_weights_become_binary_at_their_share_and_are_for_validation(tmp_path, begins,
                                                                     first_binary):
    model, _ = train(tmp_path, TrainingStagesHook(*begins), val_interval=3)
    of_mode = {mode: [flag for kind, flag in model.calls if kind == mode]
               for mode in ('loss', 'predict')}
    assert of_mode == {'loss': [i >= first_binary for i in range(ITERATIONS)],
                       'predict': [True] * 4}
    assert model.first.binarize_weights


@pytest.mark.parametrize('optimizer', [
    dict(type='AdamW', lr=0.1, weight_decay=0.2),
    dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.2, nesterov=True)])
def test_latent_weights_are_frozen_in_the_end(tmp_path, optimizer):
    _, record = train(tmp_path, TrainingStagesHook(0.2, 0.6), optimizer,
                      clip_grad=dict(max_norm=0.1))
    latent, real = ([weights[f'{name}.weight'] for weights in record.weights]
                    for name in ('first', 'last'))
    for i in range(1, ITERATIONS):
        assert torch.equal(latent[i], latent[i - 1]) == (i >= 6), i
        assert not torch.equal(real[i], real[i - 1]), i
    assert record.at_clipping == [True] * 6 + [False] * 4


# Moments of latent weights stay when these are frozen.
@pytest.mark.parametrize('begins, steps', [
    ((0.4, 0.8), [{1}, {2}, {3}, {4}, {1}, {2}, {3}, {4}, {4, 5}, {4, 6}]),
    ((0.4, 0.4), [{1}, {2}, {3}, {4}, {1}, {2}, {3}, {4}, {5}, {6}])])
def test_moments_are_reset_with_binary_weights(tmp_path, begins, steps):
    _, record = train(tmp_path, TrainingStagesHook(*begins))
    assert record.steps == steps


def test_decay_of_latent_weights_depends_on_the_stage(tmp_path):
    _, record = train(tmp_path, TrainingStagesHook(0.4, 0.8, weight_decay=(0.01, 0.)),
                      constructor='LatentWeightOptimWrapperConstructor')
    assert record.decay == [[0.2, 0.01]] * 4 + [[0.2, 0.]] * 6


def test_decay_needs_groups_and_stages_need_binary_layers(tmp_path):
    with pytest.raises(UserError, match='LatentWeightOptimWrapperConstructor'):
        train(tmp_path, TrainingStagesHook(weight_decay=(0.01, 0.)))
    with pytest.raises(UserError, match='Linear has no binary layer'):
        TrainingStagesHook().before_train(SimpleNamespace(model=nn.Linear(2, 2)))
