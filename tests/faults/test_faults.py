"""Commands that are killed at random moments and on a full disk end as if they were not.

``make faults`` runs this and prints the table of `docs/reliability.md`.
"""

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.faults.conftest import TINY

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks, and kills without mercy")

FREQUENT = """
import holdfast.training.checkpoints as checkpoints
checkpoints._INTERVAL = 0.02
"""
FULL = """
import errno, os
from pathlib import Path

rename, left = Path.replace, [{count}]

def replace(self, target):
    left[0] -= 1
    if left[0] < 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return rename(self, target)

Path.replace = replace
"""
ONCE, TWICE = "Ctrl-C", "Ctrl-C twice"
BY_SIGNAL = ("SIGKILL", ONCE, TWICE, "SIGTERM")
"""Of a command whose results appear by one rename; a disk that is really full comes below."""
SIGNALS = {
    "SIGKILL": [signal.SIGKILL],
    ONCE: [signal.SIGINT],
    TWICE: [signal.SIGINT, signal.SIGINT],
    "SIGTERM": [signal.SIGTERM],
    "full disk": [],
}
STATUS = {
    "SIGKILL": {-9},
    ONCE: {130},
    TWICE: {130},
    "SIGTERM": {143, -15},
    "full disk": {2},
}


@dataclass(frozen=True)
class Case:
    """A command that is interrupted, and what of its folder has to be equal in the end."""

    arguments: Callable[[Path], tuple[object, ...]]
    results: Callable[[Path], dict[str, bytes]]
    prepare: Callable[[Path], object] = lambda folder: None
    done: Callable[[Path], bool] = lambda folder: False  # so that it would be refused once more
    kills: int = 10
    ways: tuple[str, ...] = tuple(SIGNALS)


def everything(name, *patterns):
    def read(folder):
        found = {path for pattern in patterns for path in (folder / name).glob(pattern)}
        files = {path for path in found if path.is_file() and not path.name.startswith(".")}
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    return read


def training(recipe, *more):
    def arguments(folder):
        # Whatever is there already, it has to be asked for by --resume.
        resume = ["--resume"] if (folder / "run" / "checkpoints").exists() else []
        resume = resume or (["--resume"] if (folder / "run" / "model.safetensors").exists() else [])
        return ("train", recipe, *TINY, *more, "--out", "run", *resume)

    return arguments


def cases(trained, archive):
    held_out = "--data={path: digits, size: 16, limit: 60, validation: 20}"
    return {
        "train, natural": Case(training("digits/natural"), everything("run", "*"), kills=7),
        "train, ART, with validation": Case(
            training("digits/art", held_out), everything("run", "*"), kills=7
        ),
        "train, gradients accumulated": Case(
            training("digits/natural", "--trainer.accumulate_grad_batches=2"),
            everything("run", "*"),
            kills=6,
        ),
        "roar": Case(
            lambda folder: (
                *("roar", trained, "--methods=gradient", "--roar.shares=[0.5]"),
                *("--quiet", "--out", "roar"),
            ),
            everything("roar", "roar.parquet", "*/*/*.safetensors", "*/*/metrics.csv"),
        ),
        "data import": Case(
            lambda folder: ("data", "import", "tiny-imagenet", archive, "data"),
            everything("data", "**/*"),
            done=lambda folder: (folder / "data").exists(),
            ways=BY_SIGNAL,
        ),
    }


NAMES = tuple(cases(None, None))


@pytest.fixture(scope="module")
def table():
    rows = []
    yield rows
    print("\n| command | interrupted by | times | ended the same |\n|---|---|---|---|")
    for row in rows:
        print("| {} | {} | {} | {} |".format(*row))


def interrupt(command, case, folder, way, rng, seconds):
    """Start the command and interrupt it; return whether that came before its end."""
    if way == "full disk":
        before, signals = FULL.format(count=rng.randrange(4, 30)), []
    else:
        moment = rng.uniform(0.05, max(seconds, 0.1))
        before = ""
        signals = [(number, moment + 0.05 * n) for n, number in enumerate(SIGNALS[way])]
    done = command(
        *case.arguments(folder),
        cwd=folder,
        before=FREQUENT + before,
        signals=signals,
        seconds=120,
    )
    assert not done.timed_out
    assert "Traceback" not in done.stderr, done.stderr
    if done.status == 0:
        return False
    assert done.status in STATUS[way], (way, done.status, done.stderr)
    if way != "SIGKILL" and done.status > 0:
        assert done.stderr.strip().splitlines()[-1].startswith("holdfast: "), done.stderr
    return True


def interrupted_often(command, case, expected, ways, kills, folder, rng, seconds):
    """Interrupt a command until it was done so many times; return how often, and what was equal."""
    count, equal, number = dict.fromkeys(ways, 0), True, 0
    while sum(count.values()) < kills and number < 4 * kills:
        here = folder / str(number)
        number += 1
        here.mkdir()
        case.prepare(here)
        for _ in range(3):
            way = min(ways, key=lambda way: (count[way], rng.random()))
            if not interrupt(command, case, here, way, rng, seconds):
                break
            count[way] += 1
            if case.done(here):
                break
        if not case.done(here):
            done = command(*case.arguments(here), cwd=here, before=FREQUENT, seconds=120)
            assert done.status == 0, done.stderr
        equal = equal and case.results(here) == expected
        shutil.rmtree(here)
    return count, equal


def undisturbed(command, case, folder):
    folder.mkdir()
    case.prepare(folder)
    done = command(*case.arguments(folder), cwd=folder, seconds=120)
    assert done.status == 0, done.stderr
    expected = case.results(folder)
    assert expected
    return expected, done.seconds


@pytest.mark.harness
@pytest.mark.parametrize("name", NAMES)
def test_interrupted_at_random(name, command, trained, archive, tmp_path, table):
    case = cases(trained, archive)[name]
    expected, seconds = undisturbed(command, case, tmp_path / "whole")
    rng = random.Random(name)
    count, equal = interrupted_often(
        command, case, expected, case.ways, case.kills, tmp_path, rng, seconds
    )
    ways = ", ".join(f"{way} ({times})" for way, times in count.items() if times)
    table.append((name, ways, sum(count.values()), "all" if equal else "not all"))
    assert equal
    assert sum(count.values()) >= case.kills


@pytest.mark.parametrize("way", ["SIGKILL", "SIGTERM"])
def test_a_training_is_killed_at_the_command(way, command, tmp_path):
    case = Case(training("digits/natural"), everything("run", "*"))
    expected, seconds = undisturbed(command, case, tmp_path / "whole")
    rng = random.Random(way)
    count, equal = interrupted_often(command, case, expected, (way,), 1, tmp_path, rng, seconds)
    assert equal
    assert count[way] >= 1


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


def fill(disk, left):
    """Fill a disk but for so many bytes."""
    space = os.statvfs(disk)
    size = space.f_bavail * space.f_frsize - left
    with (disk / "filling").open("wb") as file:
        file.write(b"\0" * max(0, size))


@pytest.mark.harness
@pytest.mark.parametrize("name", ["train, natural", "data import"])
def test_on_a_full_disk(name, command, trained, archive, tmp_path, small_disk):
    case = cases(trained, archive)[name]
    folder = small_disk / "here"
    expected, _ = undisturbed(command, case, folder)
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    failed = 0
    for share in (0.0, 0.3, 0.7):
        shutil.rmtree(folder)
        folder.mkdir()
        case.prepare(folder)
        fill(small_disk, int(share * used))
        done = command(*case.arguments(folder), cwd=folder, seconds=120)
        assert not done.timed_out
        if done.status != 0:
            failed += 1
            assert done.status == 2, done.stderr
            lines = done.stderr.strip().splitlines()
            assert lines[-1].startswith("holdfast: error: "), done.stderr
            assert "Traceback" not in done.stderr
        (small_disk / "filling").unlink()
        if not case.done(folder):
            done = command(*case.arguments(folder), cwd=folder, seconds=120)
            assert done.status == 0, done.stderr
        assert case.results(folder) == expected
    assert failed
