import os
import stat

import pytest

from holdfast.files import whole


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
