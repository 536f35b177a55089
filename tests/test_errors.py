import pytest

from bhvit_seg.errors import UserError, command, find_user_error


def test_user_error_ends_a_command_with_one_line_and_bugs_keep_their_traceback(capsys):
    @command
    def main(error):
        if error:
            raise error
        return 7

    with pytest.raises(SystemExit) as end:
        main(UserError('the value is 3, but 4 was expected'))
    assert end.value.code == 2
    assert capsys.readouterr().err == 'error: the value is 3, but 4 was expected\n'
    with pytest.raises(KeyError):
        main(KeyError('bug'))
    assert main(None) == 7


def test_innermost_user_error_is_found_behind_others():
    with pytest.raises(TypeError) as outer:
        try:
            raise UserError('inner')
        except UserError as error:
            raise TypeError('class `X` in x.py: inner') from error
    assert str(find_user_error(outer.value)) == 'inner'
    assert find_user_error(ValueError()) is None
