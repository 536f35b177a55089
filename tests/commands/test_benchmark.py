"""The table of times; no test checks a time."""

import hashlib
import json

import pytest

from bhvit_seg import shipped
from bhvit_seg.cli import main
from bhvit_seg.native import usable_cores


def test_every_size_and_number_of_threads_has_a_row(map_model, capsys):
    path = map_model(channels=4)
    assert main(['benchmark', str(path), '--sizes', '64', '40', '--seconds', '0']) == 0
    first, header, *rows = capsys.readouterr().out.splitlines()
    assert 'GMAC/s a core' in first and header.split()[:5] == ['model', 'MB', 'pixels', 'threads',
                                                               'ms']
    threads = sorted({1, usable_cores()})
    assert [row.split()[:4] for row in rows] == [
        [path.name, f'{path.stat().st_size / 1e6:.2f}', size, str(count)]
        for count in threads for size in ('64×64', '40×40')]
    for row in rows:
        least, median, per_second, rate, share = map(float, row.split()[4:])
        assert 0 < least <= median and per_second > 0 and 0 <= share <= 100 and rate >= 0


def test_shipped_models_are_the_default(map_model, capsys, monkeypatch, tmp_path, sentence):
    monkeypatch.setattr(shipped, 'ZOO', tmp_path)
    (tmp_path / 'index.json').write_text('{}')
    assert 'no models are shipped' in sentence(main, 'benchmark')
    content = map_model().read_bytes()
    (tmp_path / 'a.bhv').write_bytes(content)
    (tmp_path / 'index.json').write_text(json.dumps(
        {'roads': {'file': 'a.bhv', 'sha256': hashlib.sha256(content).hexdigest()}}))
    for arguments in ([], ['--model', 'roads']):
        assert main(['benchmark', *arguments, '--sizes', '32', '--seconds', '0']) == 0
        assert '\nroads ' in capsys.readouterr().out


@pytest.mark.parametrize('arguments, words', [
    (['none.bhv'], 'none.bhv'), (['a.bhv', '--model', 'b'], '--model b'),
    (['a.bhv', '--sizes', '2'], '--sizes has 2')])
def test_bad_input_is_one_sentence(arguments, words, sentence):
    assert words in sentence(main, 'benchmark', *arguments)
