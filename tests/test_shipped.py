from pathlib import Path

import pytest

from bhvit_seg.errors import UserError
from bhvit_seg.shipped import config_paths, configs_folder, find_config

NAME = 'bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224'


def test_every_config_of_the_checkout_is_found_by_its_name(repository):
    files = [path for folder in ('bhvit', 'demo', 'pretrain')
             for path in (repository / 'configs' / folder).glob('*.py')]
    assert len(files) > 40
    for path in files:
        found = find_config(path.stem)
        assert found.read_bytes() == path.read_bytes()
        assert find_config(path.name) == found
    names = [path.stem for path in configs_folder().rglob('*.py')
             if not {'_base_', 'suites'} & set(path.relative_to(configs_folder()).parts)]
    assert len(names) == len(set(names)) == len(config_paths())


def test_a_file_of_the_user_comes_first(tmp_path, monkeypatch):
    (tmp_path / NAME).write_text('')
    monkeypatch.chdir(tmp_path)
    assert find_config(NAME) == Path(NAME)


@pytest.mark.parametrize('given', [NAME[:-1], f'configs/bhvit/{NAME[:-4]}.py'])
def test_wrong_name_is_told(given):
    with pytest.raises(UserError) as error:
        find_config(given)
    assert given in str(error.value)
