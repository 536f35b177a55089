"""Fixtures of the tests of packed models."""

from __future__ import annotations

import pytest
from mmengine.registry import init_default_scope
from native.segmentors import build_segmentor

from bhvit_seg.native.export import fold_segmentor
from bhvit_seg.native.file_format import write_packed


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')


@pytest.fixture(scope='session')
def packed(tmp_path_factory):
    """A function that writes the packed model of a small segmentor and names it."""
    folder = tmp_path_factory.mktemp('packed')

    def write(name, **options):
        path = folder / f'{name}.bhv'
        if not path.exists():
            tensors = fold_segmentor(build_segmentor(**options))
            write_packed(path, tensors, {'name': name})
        return path

    return write
