import json

import pytest

from bhvit_seg.commands.costs import measure_complexity

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


def test_tool_prints_parts_and_writes_layers(repository, tool, tmp_path, capsys):
    path = tmp_path / 'cost.json'
    assert tool('tools/complexity.py')(
        [str(repository / TINY), '--size', '64', '64', '--json', str(path)]) == 0
    out = capsys.readouterr().out
    assert 'backbone.stages' in out and 'total' in out and 'packed file: ' in out
    record, = json.loads(path.read_text())
    assert len(record['layers']) > 100
    assert f'{record["total"]["bops"] / 1e6:,.2f}' in out


@pytest.mark.parametrize('arguments, words', [
    ([TINY, '--size', '0', '5'], '--size is 0 5'), ([TINY, '--depth', '0'], '--depth is 0'),
    ([TINY, '--size', '3', '64'], 'smaller than one 4×4 patch'),
    ([TINY, '--cfg-options', 'model.backbon.arch=small'], 'model.backbon')])
def test_bad_input_ends_in_a_sentence(repository, tool, sentence, arguments, words):
    arguments = [str(repository / a) if a == TINY else a for a in arguments]
    assert words in sentence(tool('tools/complexity.py'), *arguments)
