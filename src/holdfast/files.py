"""Writing files whole or not at all, and by one process at a time."""

from __future__ import annotations

import errno
import glob
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from holdfast.errors import HoldfastError

__all__ = ["is_first_rank", "locked", "whole", "whole_folder"]

_LOCK = ".lock"
_REFUSALS = {
    getattr(errno, name)
    for name in (
        *(
            "EACCES",
            "EBUSY",
            "EDQUOT",
            "EEXIST",
            "EFBIG",
            "EIO",
            "EISDIR",
            "ENAMETOOLONG",
            "ENOSPC",
        ),
        *("ENOTDIR", "ENOTEMPTY", "EPERM", "EROFS", "ESTALE"),
    )
    if hasattr(errno, name)
}
"""What a file system answers where it does not take a file."""


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """Give a temporary file beside ``file`` that takes its name only when the block is done.

    A reader never meets half a file, and what was there before stays if the block fails. Folders
    above are made. A process that is killed leaves its temporary file, whose name starts with a
    dot; whoever writes ``file`` next removes it.

    Raises
    ------
    HoldfastError
        If the file system does not take the file, because it is full, read-only and so on.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole(Path(folder) / "new" / "note.txt") as unfinished:
    ...         _ = unfinished.write_text("done")
    ...     [path.name for path in (Path(folder) / "new").iterdir()]
    ['note.txt']
    """
    # Machines that share a folder have processes of the same numbers.
    here = f".{file.name}.{platform.node()}"
    unfinished = file.with_name(f"{here}.{os.getpid()}")
    with _plain_refusal(file):
        if file.exists() and not file.is_file():  # a folder, or a device that a file would replace
            raise HoldfastError(f"{file} is there and no file; choose another name")
        file.parent.mkdir(parents=True, exist_ok=True)
        for left in file.parent.glob(f"{glob.escape(here)}.*"):
            if not _runs(left.suffix[1:]):
                left.unlink(missing_ok=True)
        try:
            yield unfinished
            if not unfinished.is_dir():  # on the disk, before it takes its name
                with unfinished.open("rb+") as opened:
                    os.fsync(opened.fileno())
            unfinished.replace(file)
        finally:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``folder`` that takes its name only when the block is done.

    So does :func:`whole` with a file. What a killed process has left goes when somebody next writes
    this folder.

    Raises
    ------
    HoldfastError
        If there is something in ``folder`` already, or the file system does not take it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as above:
    ...     with whole_folder(Path(above) / "new") as unfinished:
    ...         _ = (unfinished / "note.txt").write_text("done")
    ...     [str(path.relative_to(above)) for path in Path(above).rglob("*")]
    ['new', 'new/note.txt']
    """
    folder = Path(os.path.realpath(folder))
    here = f".{folder.name}.{platform.node()}"
    unfinished = folder.with_name(f"{here}.{os.getpid()}")
    with _plain_refusal(folder):
        _refuse_if_taken(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f"{glob.escape(here)}.*"):
            if left == unfinished or not _runs(left.suffix[1:]):
                shutil.rmtree(left, ignore_errors=True)
        try:
            unfinished.mkdir()
            yield unfinished
            _refuse_if_taken(folder)
            with suppress(FileNotFoundError):
                folder.rmdir()
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _refuse_if_taken(folder: Path) -> None:
    if folder.is_dir():
        there = next(folder.iterdir(), None)
        if there is not None:
            raise HoldfastError(f"{there} is there already; choose an empty folder")
    elif folder.exists():
        raise HoldfastError(f"{folder} is a file; choose an empty folder")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from working in a folder while the block runs.

    The folder is made; one that stays empty is removed again. A file in it says which process of
    which machine works there, and goes with the block. What is left by a process that is gone is
    taken over. Of several ranks that work together, the first holds the lock for all.

    Raises
    ------
    HoldfastError
        If a process works there, perhaps on another machine, or the folder cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> run = Path(tempfile.mkdtemp()) / "run"
    >>> with locked(run):
    ...     try:
    ...         locked(run).__enter__()
    ...     except HoldfastError as error:
    ...         print(str(error).partition("; ")[2])
    wait for its end, or choose another folder
    >>> run.exists()
    False
    """
    if not is_first_rank():
        yield
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    lock, mine = folder / _LOCK, _identity(os.getpid())
    try:
        with _plain_refusal(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with _one_at_a_time(folder):
                _refuse_if_held(lock)
                with whole(lock) as unfinished:
                    unfinished.write_text(mine, encoding="utf-8")
        try:
            yield
        finally:
            # A fork of this process is another one, and leaves the lock to its parent.
            with suppress(OSError):
                if lock.read_text(encoding="utf-8") == mine == _identity(os.getpid()):
                    lock.unlink()
    finally:
        with suppress(OSError):
            for path in made:
                path.rmdir()  # refuses where there is something


def is_first_rank() -> bool:
    """Whether this process is the only one, or the first of those that a launcher has started.

    Examples
    --------
    >>> is_first_rank()
    True
    """
    if "RANK" in os.environ:
        return os.environ["RANK"] == "0"
    names = ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in names)


@contextmanager
def _plain_refusal(path: Path) -> Iterator[None]:
    """Say in a line of ours why the file system does not take a file."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno not in _REFUSALS:
            raise
        reason = os.strerror(error.errno)
        raise HoldfastError(f"{path} cannot be written: {reason}") from error


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let no two processes of this machine take over the same lock."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a network's file system may not do it
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def _refuse_if_held(lock: Path) -> None:
    try:
        process, host, begun = lock.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return
    except ValueError:  # nothing that `locked` has written
        process, host, begun = "?", "an unknown machine", ""
    if host != platform.node():
        raise HoldfastError(
            f"process {process} of {host} works in {lock.parent}; if it does not any more, remove "
            f"{lock}"
        )
    if _runs(process) and begun == _begun(process):
        raise HoldfastError(
            f"process {process} works in {lock.parent}; wait for its end, or choose another folder"
        )


def _identity(process: int) -> str:
    return f"{process}\n{platform.node()}\n{_begun(str(process))}"


def _begun(process: str) -> str:
    """Return when a process began, as numbers are given again; "" where nobody knows."""
    try:
        state, *others = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "ended" if state in "ZX" else others[18]


def _runs(process: str) -> bool:
    """Whether a process of this number runs here; in doubt, yes."""
    if os.name != "posix" or not process.isdecimal():
        return True  # elsewhere, signal 0 is not harmless
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
