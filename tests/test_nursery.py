"""The fixture `command` itself: what it passes on, and that its time limit and signals work."""

import signal
from pathlib import Path


def test_passes_arguments_folder_environment_and_streams_on(command, tmp_path):
    done = command("report", "nöne", cwd=tmp_path)
    assert (done.status, done.stdout) == (2, "")
    assert done.stderr == "holdfast: error: path: expected the folder of a run, got nöne\n"
    show = "import os, sys; print(os.getcwd(), os.environ['A'], 'HOME' in os.environ, input())"
    done = command(
        "--version", cwd=tmp_path, env={"A": "b", "HOME": None}, stdin="c\n", before=show
    )
    assert done.status == 0
    assert done.stdout.splitlines()[0] == f"{tmp_path} b False c"
    assert done.stdout.splitlines()[1].startswith("holdfast ")


def test_kills_at_the_time_limit_what_the_command_has_started_too(command):
    sleep = "import subprocess; p = subprocess.Popen(['sleep', '99']); print(p.pid, flush=True)"
    done = command("--version", seconds=0.5, before=f"{sleep}; p.wait()")
    assert done.timed_out
    assert done.status == -signal.SIGKILL
    stat = Path("/proc", done.stdout.strip(), "stat")
    assert not stat.exists() or ") Z" in stat.read_text()


def test_sends_signals_after_seconds_and_when_a_file_appears(command, tmp_path):
    wait = "import time; open('there', 'w').close(); time.sleep(100)"
    done = command(
        "--version",
        cwd=tmp_path,
        before=wait,
        signals=[(signal.SIGTERM, tmp_path / "there")],
    )
    assert (done.status, done.timed_out) == (-signal.SIGTERM, False)
    done = command(
        "--version", before="import time; time.sleep(100)", signals=[(signal.SIGKILL, 0.2)]
    )
    assert (done.status, done.timed_out) == (-signal.SIGKILL, False)
