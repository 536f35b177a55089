import io
import json

import pytest
from rich.console import Console

from bhvit_seg.commands.costs import cost_table, group_layers, measure_complexity

TINY = 'configs/bhvit/bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224.py'
REACTNET = 'configs/suites/baselines/reactnet-18_segformer_1xb4-3k_rs-lvf-224x224.py'


def test_packed_bytes_are_those_of_a_file_and_of_the_student_alone(repository):
    plain, taught = (measure_complexity(repository / name, (64, 64)) for name in (
        TINY, TINY.replace('tiny_', 'tiny_distill_')))
    assert plain['packed_bytes'] == pytest.approx(plain['total']['bytes'], rel=0.1)
    assert plain['not_packed'] is None and plain['packed_bytes'] == taught['packed_bytes']
    assert taught['total'] == plain['total']
    record = measure_complexity(repository / REACTNET)
    assert record['size'] == [224, 224]
    assert record['packed_bytes'] is None and 'BinaryResNet' in record['not_packed']


def test_grouping_keeps_the_sum():
    layers = [{'name': name, 'kind': 'K', 'flops': 1, 'bops': 64, 'ops': 2.0, 'bytes': 4,
               'binary_parameters': 1, 'float_parameters': 1}
              for name in ('a.b.c', 'a.b.d', 'a.e', 'f')]
    groups = group_layers(layers, 2)
    assert [(g['name'], g['kind'], g['ops']) for g in groups] == [
        ('a.b', '', 4.0), ('a.e', 'K', 2.0), ('f', 'K', 2.0)]
    assert group_layers(layers, None) == layers


def test_tool_prints_parts_and_writes_layers(repository, tool, tmp_path, capsys):
    path = tmp_path / 'cost.json'
    assert tool('tools/complexity.py')(
        [str(repository / TINY), '--size', '64', '64', '--json', str(path)]) == 0
    out = capsys.readouterr().out
    assert 'backbone.stages' in out and 'total' in out and 'packed file: ' in out
    record, = json.loads(path.read_text())
    assert len(record['layers']) > 100
    assert f'{record["total"]["bops"] / 1e6:,.2f}' in out


@pytest.mark.parametrize('names', [['bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224'] * 2,
                                   ['bhvit-small_upernet_8xb2-160k_ade20k-512x512']])
def test_tables_keep_their_numbers_on_a_narrow_terminal(names):
    sums = dict(flops=78_743_112_345, bops=10_342_712_345, ops=88_743_112_345.5,
                binary_parameters=12_131_000, float_parameters=1_331_000, bytes=53_840_123)
    records = [{'config': f'{name}.py', 'size': [1001, 333], 'total': sums,
                'layers': [{'name': 'decode_head.fuse', 'kind': '', **sums}]} for name in names]
    console = Console(width=80, file=io.StringIO())
    console.print(cost_table(records))
    lines = console.file.getvalue()
    for number in ('78,743.11', '10,342.71', '88,743.11', '12.13', '1.33', '53,840.1'):
        assert lines.count(number) == 2
    assert '…' not in lines and max(map(len, lines.splitlines())) <= 80


def test_tool_names_what_it_cannot_count(repository, tool, tmp_path, capsys):
    config = tmp_path / 'odd.py'
    config.write_text(
        f'_base_ = {str(repository / TINY)!r}\n'
        "model = dict(decode_head=dict(_delete_=True, type='DepthwiseSeparableASPPHead', "
        'in_channels=512, in_index=3, channels=64, c1_in_channels=0, c1_channels=0, '
        "dilations=(1, 2), num_classes=2, norm_cfg=dict(type='BN'), act_cfg=dict(type='Odd')))\n"
        "custom_imports = dict(imports=['odd_activation'])\n")
    (tmp_path / 'odd_activation.py').write_text(
        'import torch\nfrom mmengine.registry import MODELS\n\n\n'
        '@MODELS.register_module(force=True)\n'
        'class Odd(torch.nn.Module):\n'
        '    def __init__(self, inplace=False):\n'
        '        super().__init__()\n'
        '        self.factor = torch.nn.Parameter(torch.ones(64))\n\n'
        '    def forward(self, x):\n'
        '        return x + (x.flatten(1)[:, :64] @ self.factor).view(-1, 1, 1, 1)\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        assert tool('tools/complexity.py')([str(config), '--size', '64', '64']) == 1
    out = capsys.readouterr().out
    assert 'not counted: ' in out and '(Odd)' in out


@pytest.mark.parametrize('arguments, words', [
    ([TINY, '--size', '0', '5'], '--size is 0 5'), ([TINY, '--depth', '0'], '--depth is 0'),
    ([TINY, '--size', '3', '64'], 'smaller than one 4×4 patch'),
    ([TINY, '--cfg-options', 'model.backbon.arch=small'], 'model.backbon')])
def test_bad_input_ends_in_a_sentence(repository, tool, sentence, arguments, words):
    arguments = [str(repository / a) if a == TINY else a for a in arguments]
    assert words in sentence(tool('tools/complexity.py'), *arguments)
