import shutil

import pytest


@pytest.fixture
def main(tool, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tool('tools/predict.py')


@pytest.fixture
def usual(trained):
    """The arguments that name a model and an output folder."""
    return ['--config', str(trained[0]), '--checkpoint', str(trained[1]), '--out', 'out']


def test_one_bad_image_does_not_lose_the_others(usual, tiny_data, tmp_path, main, capsys,
                                                monkeypatch):
    monkeypatch.setattr('bhvit_seg.inference.prediction.MAX_WHOLE', 40 * 48 - 1)
    shutil.copytree(tiny_data / 'images' / 'val', tmp_path / 'in')
    whole = (tmp_path / 'in' / '1.png').read_bytes()
    (tmp_path / 'in' / '1.png').write_bytes(whole[:len(whole) // 2])
    assert main(['in', *usual, '--no-overlay']) == 1
    printed = capsys.readouterr()
    assert '2 predicted into out, 0 already there, 1 failed' in printed.out
    errors = [line for line in printed.err.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1 and '1.png' in errors[0]
    note, = [line for line in printed.err.splitlines() if line.startswith('note: ')]
    assert '0.png and 1 more' in note and '--whole' in note
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'labels', 'prediction.json']
    assert sorted(path.name for path in (tmp_path / 'out' / 'labels').iterdir()) == [
        '0.png', '2.png']


@pytest.mark.parametrize('options, words', [
    (['nowhere'], 'no images found at nowhere'),
    (['IMAGE', '--opacity', '3'], '--opacity is 3.0'),
    (['IMAGE', '--out', '/dev/null/x'], '--out'),
    (['IMAGE', '--device', 'cuda:77'], 'cuda:77'),
    (['IMAGE', '--packed', 'none.bhv'], '--packed and --config'),
    (['IMAGE', '--threads', '2'], '--threads'),
    (['IMAGE', '--out', 'x.mp4'], 'is not a video'),
    (['IMAGE', '--long-side', '99'], '--long-side 99'),
    (['nowhere.mp4', '--out', 'x.mp4'], 'no video at nowhere.mp4'),
    (['nowhere.mp4'], '--out is out'),
    (['nowhere.mp4', '--no-overlay'], '--no-overlay'),
    (['97', '--out', 'x.mp4'], 'no camera 97'),
    (['97', '--out', 'x.mp4', '--long-side', '0'], '--long-side is 0'),
    (['97', '--out', 'x.mp4', '--opacity', '3'], '--opacity is 3.0'),
])
def test_bad_input_is_one_sentence(options, words, usual, tiny_data, main, sentence):
    image = tiny_data / 'images' / 'val' / '0.png'
    given = [image if option == 'IMAGE' else option for option in options]
    assert words in sentence(main, given[0], *usual, *given[1:])


@pytest.mark.parametrize('options, words', [
    ([], '--packed, or --config and --checkpoint'),
    (['--packed', 'x.bhv', '--checkpoint', 'x.pth'], '--packed and --checkpoint'),
    (['--packed', 'x.bhv', '--model', 'y'], '--model y and --packed x.bhv'),
    (['--model', 'no-such'], 'no model at no-such'),
    (['--packed', 'x.bhv', '--device', 'cpu'], '--packed and --device'),
])
def test_exactly_one_way_to_predict_is_given(options, words, main, sentence):
    assert words in sentence(main, 'image.png', '--out', 'out', *options)
