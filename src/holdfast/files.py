"""Writing files whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["whole"]


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """Give a temporary file beside ``file`` that takes its name only when the block is done.

    A reader never meets half a file, and what was there before stays if the block fails. Folders
    above are made.

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
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        yield unfinished
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
