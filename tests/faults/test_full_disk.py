"""A small disk is filled under each command, which says so, and goes on when there is room."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.faults.fault_cases import NAMES, SHORT_NAMES, cases, short_cases, undisturbed

pytestmark = pytest.mark.skipif(os.name != "posix", reason="mounts a file system")

GROWING = ("metrics.csv", "best.safetensors")
"""What is whole at each moment, and yet another thing in the end."""
PASSING = ("candidates-", "unfinished-")
"""What is sealed, and gone in the end."""


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only an administrator may mount a small disk")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.harness
@pytest.mark.parametrize("name", [*NAMES, *SHORT_NAMES])
def test_on_a_full_disk(name, command, given, small_disk, record_property):
    case = (cases(given) | short_cases(given))[name]
    folder = small_disk / "here"
    expected, _ = undisturbed(command, case, folder)
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    failed, equal = 0, True
    for share in case.shares:
        shutil.rmtree(folder)
        folder.mkdir()
        fill(small_disk, int(share * used))
        done = command(*case.arguments(folder), cwd=folder, seconds=120)
        assert not done.timed_out
        if done.status != 0:
            failed += 1
            refused_in_a_line(done)
            whole_or_absent(case.results(folder), expected)
            assert not list(folder.rglob(".*"))
        (small_disk / "filling").unlink()
        if not case.done(folder):
            case.again(folder)
            done = command(*case.arguments(folder), cwd=folder, seconds=120)
            assert done.status == 0, done.stderr
        equal = equal and case.results(folder) == expected
    place = len(NAMES) + [*NAMES, *SHORT_NAMES].index(name)
    row = (place, name, f"full disk of 24 MB ({failed})", failed, "all" if equal else "not all")
    record_property("row", row)
    assert equal
    assert failed


def fill(disk, left):
    """Fill a disk but for so many bytes."""
    space = os.statvfs(disk)
    size = space.f_bavail * space.f_frsize - left
    with (disk / "filling").open("wb") as file:
        file.write(b"\0" * max(0, size))


def refused_in_a_line(done):
    assert done.status == 2, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if "holdfast: warning: " not in line]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("holdfast: error: "), done.stderr
    assert os.strerror(28) in errors[0], done.stderr


def whole_or_absent(results, expected):
    for name, content in results.items():
        file = Path(name).name
        if file not in GROWING and not file.startswith(PASSING):
            assert content == expected[name], name
