"""A training that is killed again and again ends exactly where an undisturbed one ends."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest
import torch

from bhvit_seg.apis.checkpoint import load_checkpoint_safely
from bhvit_seg.apis.train import train

ITERATIONS = 12
# What a clock decides.
CLOCK = {'time', 'data_time', 'eta'}


@pytest.fixture(scope='module')
def processes():
    """Clean processes that have the mm stack imported: a second each instead of five."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['bhvit_seg.apis.train'])
    return context


def start(processes, config: Path, work_dir: Path, log: Path):
    process = processes.Process(target=train_quietly, args=(train, config, work_dir, log))
    process.start()
    return process


class train_quietly:  # noqa: N801
    """Placeholder replaced below."""
