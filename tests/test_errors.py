from __future__ import annotations

import pytest

from bhvit_seg.errors import UserError, command, find_user_error


def test_user_error_ends_a_command_with_one_line(capsys):
    @command
    def main():
        raise UserError('the value is 3, but 4 was expected')

    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().err == 'error: the value is 3, but 4 was expected\n'


def test_bugs_keep_their_traceback():
    @command
    def main():
        raise KeyError('bug')

    with pytest.raises(KeyError):
        main()


def test_innermost_user_error_is_found_behind_others():
    try:
        try:
            raise UserError('inner')
        except UserError as error:
            raise TypeError('class `X` in x.py: inner') from error
    except TypeError as error:
        assert str(find_user_error(error)) == 'inner'
    assert find_user_error(ValueError()) is None


def test_return_value_passes():
    assert command(lambda: 7)() == 7
