import io
import time

from holdfast.audit import progress as module
from holdfast.audit.progress import progress, time_left


def shown(monkeypatch, work, total=40, begun=0, every=60.0):
    """Print what is said, at a clock that stands still but for the work."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "POLL", 1e-3)
    monkeypatch.setattr(module, "EVERY", every)
    done = [begun]
    with progress("Auditing cifar10", total, "shards", lambda: done[0]):
        for seconds, pieces in work:
            now[0] += seconds
            done[0] += pieces
            time.sleep(0.05)


def test_a_line_says_what_is_left_from_the_first_piece_on(monkeypatch, capsys):
    shown(monkeypatch, [(20.0, 1)])
    assert capsys.readouterr().out == "Auditing cifar10: 1 of 40 shards, about 13 min left\n"


def test_what_was_done_before_says_nothing_of_the_speed(monkeypatch, capsys):
    shown(monkeypatch, [(30.0, 1)], begun=19)
    assert capsys.readouterr().out.splitlines() == [
        "Auditing cifar10: 19 of 40 shards",
        "Auditing cifar10: 20 of 40 shards, about 10 min left",
    ]


def test_lines_are_no_flood(monkeypatch, capsys):
    shown(monkeypatch, [(1.0, 1)] * 40)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Auditing cifar10: 1 of 40 shards, about 39 s left")
    assert lines[1:] == ["Auditing cifar10: 40 of 40 shards"]


def test_nothing_is_said_of_nothing(capsys):
    with progress("a", 0, "b", lambda: 0), progress("a", 3, "b", lambda: 1, shown=False):
        pass
    assert not capsys.readouterr().out


def test_a_terminal_has_a_bar_with_the_time_left(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(module, "POLL", 1e-3)
    done = [0]
    with progress("Auditing", 4, "shards", lambda: done[0]):
        time.sleep(0.05)
        done[0] = 1
        time.sleep(0.3)
    assert "1/4" in terminal.getvalue()
    assert "s left" in terminal.getvalue()


def test_the_time_left_grows_with_what_is_left():
    assert time_left(1, 1, 5.0) == "about 5 s left"
    assert time_left(5, 0, 5.0) == time_left(0, 5, 5.0) == ""
