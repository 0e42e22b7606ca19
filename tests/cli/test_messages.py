import os
import subprocess
import sys
import warnings

import pytest
import yaml

from holdfast import cli
from holdfast.cli import main
from holdfast.cli.messages import message_of, one_line, warnings_as_lines


@pytest.fixture
def fails(monkeypatch):
    """Have `holdfast list` raise an error."""

    def with_(error):
        def verb(arguments):
            raise error

        monkeypatch.setattr(cli, "_verb", lambda name: verb)
        return main(["list"])

    return with_


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device", "runs/a"), "runs/a: No space left on device"),
        (PermissionError(13, "Permission denied", b"a\xff"), r"a\udcff: Permission denied"),
        (OSError(36, "File name too long", "x" * 9000), "File name too long"),
        (OSError(18, "Cross-device link", "a", None, "b"), "a and b: Cross-device link"),
        (OSError("cannot identify image file 'a'"), "cannot identify image file 'a'"),
        (BrokenPipeError(32, "Broken pipe"), "Broken pipe"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "text is not in UTF-8"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (MemoryError(), "out of memory"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "out of memory",
        ),
        (yaml.YAMLError("a\nb"), "no valid YAML was given: a b"),
    ],
)
def test_errors_of_the_machine_are_one_line_with_status_2(error, says, fails, capsys):
    assert fails(error) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("holdfast: error: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert "fault of Holdfast" not in captured.err
    assert len(captured.err) < 5000


def test_any_other_error_is_called_a_fault_of_holdfast(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_overview", lambda: 1 // 0 if os.sep else None)
    # Its place is this file, which is a user's: pretend that it is not.
    monkeypatch.setattr(cli.messages, "_in_a_users_code", lambda traceback: "")
    assert main(["--help"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("holdfast: error: this is a fault of Holdfast: ZeroDivisionError: ")
    assert "--debug" in error
    assert error.count("\n") == 1
    assert main(["--help", "--debug"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    monkeypatch.setenv("HOLDFAST_DEBUG", "1")
    assert main(["--help"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_error_in_a_users_code_names_its_place(fails, capsys):
    assert fails(KeyError("no such thing")) == 2
    error = capsys.readouterr().err
    assert f"{__file__}, line " in error
    assert "KeyError: 'no such thing'" in error
    assert "fault of Holdfast" not in error


@pytest.mark.parametrize(("code", "status"), [(None, 0), (3, 3), ("no", 2), (143, 143)])
def test_an_exit_keeps_its_status(code, status, fails):
    assert fails(SystemExit(code)) == status


def test_an_interrupt_has_the_status_of_one(fails, capsys):
    assert fails(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "holdfast: stopped\n"


def test_lines_have_no_control_characters():
    assert one_line("a\r\n\tb\x00\x1b[31m\x85\u2028c") == r"a b\x00\x1b[31m c"
    assert one_line("\ud800ε×") == r"\ud800ε×"
    assert len(one_line("x" * 10**6)) < 5000
    assert message_of(ValueError("a\nb")).count("\n") == 0


def test_warnings_are_a_line_each(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with warnings_as_lines():
            warnings.warn("two\nlines", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "holdfast: warning: two lines\n"


def piped(shell, **env):
    command = shell.replace("holdfast", f"{sys.executable} -m holdfast")
    return subprocess.run(
        ["bash", "-c", command], env=os.environ | env, capture_output=True, check=False
    )


@pytest.mark.skipif(os.name != "posix", reason="a shell's redirections")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("shell", "status", "error"),
    [
        ("holdfast --help | true; exit ${PIPESTATUS[0]}", 141, b""),
        ("holdfast --help >&-", 0, b""),
        ("holdfast --help >/dev/full", 2, b"holdfast: error: No space left on device\n"),
        ("holdfast fly 2>&-", 2, b""),
        ("holdfast fly 2>/dev/full", 2, b""),
    ],
)
def test_whatever_the_output_is(shell, status, error, unbuffered):
    done = piped(shell, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (status, error)


def test_a_terminal_of_ascii_gets_what_it_can_show():
    done = piped("holdfast --help; holdfast fly-ε", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (done.returncode, done.stdout[:25]) == (2, rb"usage: holdfast COMMAND \u"[:25])
    assert rb"fly-\u03b5" in done.stderr
    assert done.stderr.count(b"\n") == 1
