import errno
import multiprocessing
import os
import platform
import resource
import signal
import stat
import subprocess
import sys
import time

import pytest

from holdfast.contracts import HoldfastError
from holdfast.files import locked, whole, whole_folder


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("before")

    def fail():
        with whole(file) as unfinished:
            unfinished.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert file.read_text() == "before"


def test_a_block_that_ends_replaces_it_and_is_as_readable_as_any_file(tmp_path):
    file = tmp_path / "new" / "a.txt"
    for text in ("one", "two"):
        with whole(file) as unfinished:
            unfinished.write_text(text)
            assert not file.exists() or file.read_text() == "one"
    assert file.read_text() == "two"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")],
)
def test_what_the_file_system_refuses_is_a_line_of_ours(number, says, tmp_path):
    def refuse():
        with whole(tmp_path / "a.txt"):
            raise OSError(number, "…")

    with pytest.raises(HoldfastError, match=rf"a.txt cannot be written: {says}"):
        refuse()
    assert not list(tmp_path.iterdir())


def test_other_errors_of_the_system_pass(tmp_path):
    with pytest.raises(FileNotFoundError), whole(tmp_path / "a.txt"):
        (tmp_path / "missing").read_text()


def test_a_file_that_grows_too_large(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("before")

    def grow():
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with whole(file) as unfinished:
                unfinished.write_bytes(b"0" * 10000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with pytest.raises(HoldfastError, match="cannot be written: File too large"):
        grow()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert file.read_text() == "before"


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(HoldfastError, match="cannot be written: Not a directory"):
        locked(tmp_path / "run" / "here").__enter__()
    with (
        pytest.raises(HoldfastError, match="cannot be written"),
        whole(tmp_path / "run" / "a.txt"),
    ):
        pass


class TestLocked:
    def test_a_folder_made_for_it_goes_where_nothing_was_written(self, tmp_path):
        with locked(tmp_path / "a" / "b"):
            assert (tmp_path / "a" / "b").is_dir()
        assert not (tmp_path / "a").exists()
        with locked(tmp_path / "a" / "b"):
            (tmp_path / "a" / "b" / "result").write_text("")
        assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["result"]

    def test_the_second_is_refused_until_the_first_has_ended(self, tmp_path):
        says = f"process {os.getpid()} works in "
        with locked(tmp_path), pytest.raises(HoldfastError, match=says):
            locked(tmp_path).__enter__()
        with locked(tmp_path):
            pass

    def test_a_failure_frees_it(self, tmp_path):
        with pytest.raises(ZeroDivisionError), locked(tmp_path):
            raise ZeroDivisionError
        assert not list(tmp_path.iterdir())

    def test_one_that_was_killed_is_followed(self, tmp_path):
        code = "import sys, time; from pathlib import Path; from holdfast.files import locked\n"
        code += "with locked(Path(sys.argv[1])): print(flush=True); time.sleep(60)"
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            with pytest.raises(HoldfastError, match=f"process {process.pid} works in "):
                locked(tmp_path).__enter__()
            process.send_signal(signal.SIGKILL)
            # Dead, though its parent has not asked for it: a zombie still has its number.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            with locked(tmp_path):
                assert (tmp_path / ".lock").read_text().startswith(f"{os.getpid()}\n")
        assert not list(tmp_path.iterdir())

    @pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
    def test_a_number_that_was_given_again_holds_nothing(self, tmp_path):
        lock = tmp_path / ".lock"
        lock.write_text(f"{os.getppid()}\n{platform.node()}\n1")
        with locked(tmp_path):
            assert lock.read_text().startswith(f"{os.getpid()}\n")

    @pytest.mark.parametrize("held", ["12\nelsewhere\n5", "", "what is this"])
    def test_another_machine_names_the_file_to_remove(self, held, tmp_path):
        lock = tmp_path / ".lock"
        lock.write_text(held)
        with pytest.raises(HoldfastError, match=r"works in .*; if it does not any more, remove"):
            locked(tmp_path).__enter__()
        assert lock.read_text() == held

    @pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
    def test_other_ranks_leave_it_to_the_first(self, name, tmp_path, monkeypatch):
        with locked(tmp_path):
            monkeypatch.setenv(name, "1")
            with locked(tmp_path):
                pass
            assert (tmp_path / ".lock").exists()
            monkeypatch.setenv(name, "0")
            with pytest.raises(HoldfastError, match="works in"):
                locked(tmp_path).__enter__()

    def test_of_several_that_find_a_dead_one_only_one_takes_over(self, tmp_path):
        (tmp_path / ".lock").write_text(f"{2**22 + 1}\n{platform.node()}\n1")
        fork = multiprocessing.get_context("fork")
        start, results = fork.Barrier(4), fork.Queue()

        def contend():
            start.wait()
            try:
                with locked(tmp_path):
                    time.sleep(0.5)
                    results.put("held")
            except HoldfastError:
                results.put("refused")

        children = [fork.Process(target=contend) for _ in range(4)]
        for child in children:
            child.start()
        assert sorted(results.get(timeout=30) for _ in children) == ["held"] + ["refused"] * 3
        for child in children:
            child.join()


class TestWholeFolder:
    def test_appears_when_done_and_replaces_an_empty_one(self, tmp_path):
        (tmp_path / "out").mkdir()
        with whole_folder(tmp_path / "out") as unfinished:
            (unfinished / "a").write_text("x")
            assert list((tmp_path / "out").iterdir()) == []
        assert (tmp_path / "out" / "a").read_text() == "x"
        assert list(tmp_path.iterdir()) == [tmp_path / "out"]

    def test_a_fault_leaves_nothing(self, tmp_path):
        def fail():
            with whole_folder(tmp_path / "new" / "out") as unfinished:
                (unfinished / "a").write_text("x")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert list((tmp_path / "new").iterdir()) == []

    def test_what_came_in_the_meantime_stays(self, tmp_path):
        def write():
            with whole_folder(tmp_path / "out") as unfinished:
                (unfinished / "a").write_text("x")
                (tmp_path / "out").mkdir()
                (tmp_path / "out" / "b").write_text("theirs")

        with pytest.raises(HoldfastError, match="is there already"):
            write()
        assert [path.name for path in tmp_path.rglob("*")] == ["out", "b"]

    def test_only_what_dead_processes_left_is_removed(self, tmp_path):
        here = f".out.{platform.node()}"
        dead, alive = (tmp_path / f"{here}.{pid}" for pid in (2**22 + 1, os.getppid()))
        other = tmp_path / f".out.elsewhere.{2**22 + 1}"
        for left in (dead, alive, other):
            left.mkdir()
        with whole_folder(tmp_path / "out"):
            pass
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
            ["out", alive.name, other.name]
        )


def test_a_pipe_or_a_device_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path):
        with pytest.raises(HoldfastError, match="no file"), whole(place) as unfinished:
            unfinished.write_text("x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
