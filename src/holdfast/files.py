"""Writing files whole or not at all."""

from __future__ import annotations

import glob
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["whole"]


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """Give a temporary file beside ``file`` that takes its name only when the block is done.

    A reader never meets half a file, and what was there before stays if the block fails. Folders
    above are made. A process that is killed leaves its temporary file, whose name starts with a
    dot; whoever writes ``file`` next removes it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole(Path(folder) / "new" / "note.txt") as unfinished:
    ...         _ = unfinished.write_text("done")
    ...     [path.name for path in (Path(folder) / "new").iterdir()]
    ['note.txt']
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # Machines that share a folder have processes of the same numbers.
    here = f".{file.name}.{platform.node()}"
    for left in file.parent.glob(f"{glob.escape(here)}.*"):
        if not _runs(left.suffix[1:]):
            left.unlink(missing_ok=True)
    unfinished = file.with_name(f"{here}.{os.getpid()}")
    try:
        yield unfinished
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


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
