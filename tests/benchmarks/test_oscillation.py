import json
import re

import numpy as np
import pytest

from benchmarks.oscillation import format_results, main
from bhvit_seg.training.hooks.weight_statistics import FILE, SIDE

LAYERS = {'a': 400, 'b': 600}


def write_record(folder, flips=(50, 40, 30, 20, 10, 8, 6, 5, 4, 2, 1), peaks=False, **changes):
    """A record of looks at which as many weights of layer ``b`` flipped, and one histogram."""
    bins = np.arange(-SIDE, SIDE) + 0.5
    shape = np.exp(-((np.abs(bins) - (60 if peaks else 0)) / 15) ** 2)
    counts = np.round(1000 * shape / shape.sum()).astype(int).tolist()
    record = {
        'interval': 10, 'near_zero': 0.01, 'layers': LAYERS,
        'looks': [dict(iteration=10 * (i + 1), flipped=[0, n], near_zero=[100, 10 * n])
                  for i, n in enumerate(flips)],
        'histograms': [dict(iteration=110, bin_width=2 ** -10, counts=counts)], **changes}
    folder.mkdir(parents=True)
    (folder / FILE).write_text(json.dumps(record))
    return folder


def test_numbers_and_pictures_of_two_trainings(tmp_path, capsys):
    folders = [write_record(tmp_path / 'one', flips=(50,) * 11),
               write_record(tmp_path / 'two', peaks=True)]
    main([*map(str, folders), '--names', 'without', 'with', '--out', str(tmp_path / 'out')])
    results = json.loads((tmp_path / 'out' / 'oscillation.json').read_text())
    assert results['without'] == pytest.approx(dict(
        iterations=110, interval=10, flip_ratio=0.05, flip_ratio_last_tenth=0.05, near_zero=0.6))
    assert results['with'] == pytest.approx(dict(
        iterations=110, interval=10, flip_ratio=0.001, flip_ratio_last_tenth=0.0015,
        near_zero=0.11))
    assert format_results(results) in capsys.readouterr().out
    assert '| with | 110 | 0.1000% | 0.1500% | 11.00% |' in format_results(results)
    for name in ('weight_histograms.png', 'weight_flips.png'):
        assert (tmp_path / 'out' / name).read_bytes().startswith(b'\x89PNG')


def test_bad_input_is_named(sentence, tmp_path):
    good, out = write_record(tmp_path / 'good'), ('--out', tmp_path / 'out')
    broken = write_record(tmp_path / 'broken')
    (broken / FILE).write_text((broken / FILE).read_text()[:-20])
    for folder, words in (
            (tmp_path / 'missing', f'no {FILE} in'), (broken, 'damaged'),
            (write_record(tmp_path / 'young', flips=()), 'train longer'),
            (write_record(tmp_path / 'often', interval=5), 'interval .* 10 and 5'),
            (write_record(tmp_path / 'elsewhere' / 'good'), 'two trainings are called good')):
        assert re.search(words, sentence(main, good, folder, *out)), folder
    assert '1 names for 2 work dirs' in sentence(main, good, broken, '--names', 'x', *out)
    assert not (tmp_path / 'out').exists()
