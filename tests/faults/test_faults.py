"""Commands that are killed at random moments end as if they were not.

``make faults`` runs this and prints the table of `docs/reliability.md`.
"""

import os
import random
import shutil

import pytest
from tests.faults.fault_cases import FULL, NAMES, ONCE, SIGNALS, TWICE, cases, undisturbed

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks, and kills without mercy")

FREQUENT = """
import holdfast.audit.unfinished as unfinished
import holdfast.training.checkpoints as checkpoints
checkpoints._INTERVAL = 0.02
unfinished.EVERY = 0.0
"""
NO_SPACE = """
import errno, os, time
from pathlib import Path

rename, moment = Path.replace, time.monotonic() + {seconds}

def replace(self, target):
    if time.monotonic() > moment:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return rename(self, target)

Path.replace = replace
"""
STATUS = {
    "SIGKILL": {-9},
    ONCE: {130},
    TWICE: {130},
    "SIGTERM": {143, -15},
    FULL: {2},
}


@pytest.mark.harness
@pytest.mark.parametrize("name", NAMES)
def test_interrupted_at_random(name, command, given, tmp_path, record_property):
    case = cases(given)[name]
    expected, seconds = undisturbed(command, case, tmp_path / "whole")
    rng = random.Random(name)
    count, equal = interrupted_often(
        command, case, expected, case.ways, case.kills, tmp_path, rng, seconds
    )
    ways = ", ".join(f"{way} ({times})" for way, times in count.items() if times)
    row = (NAMES.index(name), name, ways, sum(count.values()), "all" if equal else "not all")
    record_property("row", row)
    assert equal
    assert sum(count.values()) >= case.kills


@pytest.mark.parametrize("way", [pytest.param("SIGKILL", marks=pytest.mark.harness), "SIGTERM"])
def test_a_training_is_killed_at_the_command(way, command, tmp_path):
    case = cases(None)["train, natural"]
    expected, seconds = undisturbed(command, case, tmp_path / "whole")
    rng = random.Random(way)
    count, equal = interrupted_often(command, case, expected, (way,), 1, tmp_path, rng, seconds)
    assert equal
    assert count[way] >= 1


def interrupted_often(command, case, expected, ways, kills, folder, rng, seconds):
    """Interrupt a command until it was done so many times; return how often, and what was equal."""
    count, equal, number = dict.fromkeys(ways, 0), True, 0
    # In each part of the time that it takes, once: what comes after its end is tried again.
    moments = [seconds * (part + rng.random()) / kills for part in range(kills)]
    rng.shuffle(moments)
    while moments and number < 4 * kills:
        here = folder / str(number)
        number += 1
        here.mkdir()
        for start in range(3):
            way = min(ways, key=lambda way: (count[way], rng.random()))
            if not moments or not interrupt(command, case, here, way, moments[-1]):
                if start == 0 and moments:
                    moments[-1] *= 0.9  # it takes less time than it took at first
                rng.shuffle(moments)
                break
            moments.pop()
            count[way] += 1
            if case.done(here):
                break
        if not case.done(here):
            done = command(*case.arguments(here), cwd=here, before=FREQUENT, seconds=120)
            assert done.status == 0, done.stderr
        equal = equal and case.results(here) == expected
        shutil.rmtree(here)
    return count, equal


def interrupt(command, case, folder, way, moment):
    """Start the command and interrupt it; return whether that came before its end."""
    before = NO_SPACE.format(seconds=moment) if way == FULL else ""
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
