from bhvit_seg import progress
from bhvit_seg.progress import WorkProgress


def test_without_a_terminal_lines_tell_speed_and_time_left(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(progress.time, 'monotonic', lambda: clock[0])
    with WorkProgress('mosaic.tif', 300) as work:
        clock[0] += 30
        work.add(30)
        assert not capsys.readouterr().err
        clock[0] += 30
        work.add(30)
        assert capsys.readouterr().err == (
            'mosaic.tif: 60 of 300 windows, 1.0 windows/s, 4 min left\n')
        clock[0] += 60
        work.set_fraction(0.5)
        assert '150 of 300 windows' in capsys.readouterr().err


def test_on_a_terminal_one_line_is_rewritten(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(progress.time, 'monotonic', lambda: clock[0])
    monkeypatch.setattr(progress.sys.stderr, 'isatty', lambda: True, raising=False)
    with WorkProgress('mosaic.tif', 4) as work:
        for _ in range(4):
            clock[0] += 1
            work.add(1)
    shown = capsys.readouterr().err
    assert 'mosaic.tif: 4 of 4 windows' in shown and shown.count('\n') == 1
