"""The tables of ``bhvit-seg complexity``: costs of configs per layer and in total."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bhvit_seg.compat.openmmlab  # noqa: F401  isort: skip
from mmengine.registry import MODELS, init_default_scope
from rich import box
from rich.table import Table
from torch import nn

from bhvit_seg.errors import UserError
from bhvit_seg.evaluation.complexity import count_complexity
from bhvit_seg.native.export import check_exportable
from bhvit_seg.native.packed_meta import count_channels
from bhvit_seg.native.packing import pack_model
from bhvit_seg.training.config import explain_config_errors, load_config, require_settings

SUMS = ('flops', 'bops', 'ops', 'binary_parameters', 'float_parameters', 'bytes')
DEFAULT_SIZE = (512, 512)


def measure_complexity(config: str | Path, size: Sequence[int] | None = None,
                       cfg_options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Count what the model of a config, a segmentor or a classifier, costs for one image.

    ``size`` is height and width in pixels, by default the config's crop, else 512×512.

    Returns:
        The fields of :class:`~bhvit_seg.evaluation.complexity.Complexity` as a dict, ``config``,
        ``packed_bytes`` (of the file of ``bhvit-seg export`` with 32-bit real weights, or None) and
        ``not_packed`` (why not).

    Raises:
        UserError: Config or size is wrong, or the model takes no image of that size.
    """
    cfg = load_config(config, cfg_options)
    require_settings(cfg, config, 'model')
    size = tuple(size or cfg.get('crop_size') or DEFAULT_SIZE)
    if len(size) != 2 or min(size) < 1:
        raise UserError(f'--size is {" ".join(map(str, size))}: expected height and width in '
                        'pixels, from 1')
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    with explain_config_errors():
        model = MODELS.build(cfg.model).eval()
    complexity = count_complexity(model, size, count_channels(model))
    packed_bytes, reason = packed_size(model)
    return {'config': str(config), **complexity.as_dict(), 'packed_bytes': packed_bytes,
            'not_packed': reason}


def packed_size(model: nn.Module) -> tuple[int | None, str | None]:
    """Return the bytes of the model's packed file, or None and why it has none."""
    try:
        check_exportable(model)
        with tempfile.TemporaryDirectory() as folder:
            return pack_model(model, Path(folder) / 'model.bhv', precision='32').total, None
    except UserError as error:
        return None, str(error)


def group_layers(layers: Sequence[dict[str, Any]], depth: int | None) -> list[dict[str, Any]]:
    """Sum layers whose names begin with the same ``depth`` parts; None keeps each separate."""
    groups: dict[str, dict[str, Any]] = {}
    for layer in layers:
        name = '.'.join(layer['name'].split('.')[:depth])
        kind = layer['kind'] if name == layer['name'] else ''
        group = groups.setdefault(name, {'name': name, 'kind': kind, **dict.fromkeys(SUMS, 0)})
        for key in SUMS:
            group[key] += layer[key]
    return list(groups.values())


def cost_table(records: Sequence[dict[str, Any]], depth: int | None = 2) -> Table:
    """Lay out one record of :func:`measure_complexity` by parts, or several by their totals."""

    def cells(cost: dict[str, Any]) -> list[str]:
        return [*(f'{cost[key] / 1e6:,.2f}' for key in SUMS[:5]), f'{cost["bytes"] / 1e3:,.1f}']

    several = len(records) > 1
    titles = [f'{Path(record["config"]).stem}, {"×".join(map(str, record["size"]))}'
              for record in records]
    # On a narrow terminal names are folded, numbers stay whole.
    table = Table(title=None if several else titles[0], title_justify='left',
                  box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column('config' if several else 'layer', overflow='fold', min_width=12)
    for heading in ('FLOPs, M', 'BOPs, M', 'OPs, M', '1-bit, M', 'float, M', 'kB'):
        table.add_column(heading, justify='right', no_wrap=True)
    if several:
        for title, record in zip(titles, records):
            table.add_row(title, *cells(record['total']))
        return table
    for group in group_layers(records[0]['layers'], depth):
        table.add_row(f'{group["name"]} {group["kind"]}'.strip(), *cells(group))
    table.add_section()
    table.add_row('total', *cells(records[0]['total']))
    return table


def remarks(records: Sequence[dict[str, Any]]) -> list[str]:
    """Describe for each record what was not counted, and the size of its packed file."""
    lines = []
    for record in records:
        start = f'{Path(record["config"]).stem}: ' if len(records) > 1 else ''
        if record['unknown']:
            lines.append(f'{start}not counted: {", ".join(record["unknown"])}; the totals lack '
                         'products of theirs, for which torch.utils.flop_counter has no formula')
        if record['packed_bytes'] is None:
            lines.append(f'{start}no packed file: {record["not_packed"]}')
        else:
            lines.append(f'{start}packed file: {record["packed_bytes"] / 1e3:,.1f} kB with '
                         '32-bit real weights')
    return lines
