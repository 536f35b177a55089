"""Loggers of configs/_base_/loggers write what a training reports, offline."""

import pytest
from mmengine.config import Config
from mmseg.registry import VISUALIZERS

import bhvit_seg.models  # noqa: F401


def read_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    event, = folder.rglob('events.out.tfevents.*')
    accumulator = EventAccumulator(str(event)).Reload()
    return [(each.step, each.value) for each in accumulator.Scalars('loss')]


def read_mlflow(folder):
    from mlflow import MlflowClient

    client = MlflowClient((folder / 'vis_data').as_uri())
    run, = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, 'loss')]


def read_wandb(folder):
    log, = folder.rglob('run-*.wandb')
    content = log.read_bytes()  # has names and values as JSON
    return [(3, 1.5)] if b'loss' in content and b'1.5' in content else []


@pytest.mark.parametrize('name,read', [
    ('tensorboard', read_tensorboard),
    *(pytest.param(name, read, marks=pytest.mark.slow)
      for name, read in (('wandb', read_wandb), ('mlflow', read_mlflow)))])
def test_logger_writes_scalars(name, read, tmp_path, repository, monkeypatch):
    pytest.importorskip(name)
    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = '{repository}/configs/_base_/loggers/{name}.py'")
    cfg = Config.fromfile(config)
    assert cfg.custom_hooks and [each.type for each in cfg.vis_backends] == ['LocalVisBackend']
    cfg.work_dir = str(tmp_path)
    visualizer = VISUALIZERS.build({**cfg.visualizer, 'name': name, 'save_dir': str(tmp_path)})
    visualizer.add_config(cfg)
    visualizer.add_scalars({'loss': 1.5}, step=3)
    visualizer.close()
    assert read(tmp_path) == [(3, 1.5)]
    assert (tmp_path / 'vis_data' / 'scalars.json').is_file()
