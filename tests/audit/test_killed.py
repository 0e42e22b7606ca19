"""Audits that are killed, at any moment, end with the records of one that was not."""

import os
import random
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="forks, and kills without mercy"),
]

SHARDS = 20

COMMON = """
import os, signal, sys, threading, time
from functools import partial
from pathlib import Path

import torch

from holdfast.adversarial import PGD
from holdfast.attributions import IntegratedGradients
from holdfast.audit import Audit
from holdfast.audit.devices import audit_on
from holdfast.data import ImageData
from holdfast.manipulation import TopK
from holdfast.training import load

AUDIT = Audit(
    attacks={"pgd": PGD(eps=0.1, step_size=0.02, steps=5)},
    manipulations={
        "top_k/integrated_gradients": TopK(
            IntegratedGradients(steps=8), k=20, eps=0.1, step_size=0.02, steps=8
        )
    },
    k=20,
    gallery=3,
    shard=5,
)
DATA = partial(ImageData("digits", limit=100).load, "test")
"""

DEATHS = """
def die_before(name):
    \"\"\"Be killed when the file of this name is half written.\"\"\"
    rename = Path.replace

    def replace(self, target):
        if Path(target).name == name:
            os.truncate(self, self.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)

    Path.replace = replace


def die_after(file, seconds):
    \"\"\"Be killed so many seconds after this file is there.\"\"\"

    def wait():
        while not Path(file).exists():
            time.sleep(0.002)
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
"""

SHARED = (
    COMMON
    + """
if __name__ == "__main__":
    # What a shell starts in the background ignores SIGINT, and so do its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    audit_on(2, AUDIT, partial(load, sys.argv[1]), DATA, sys.argv[2], progress=False)
"""
)


@pytest.fixture(scope="module")
def audited(command, digits_model):
    """Audit in a process of its own, which a line of Python may kill; return how it ended."""

    def audit(out, death=""):
        whole = f"AUDIT(load({str(digits_model)!r}), DATA(), {str(out)!r}, progress=False)"
        # The version is said if the audit has come to its end.
        ended = command("--version", before="\n".join([COMMON, DEATHS, death, whole]), seconds=180)
        assert ended.status in (0, -signal.SIGKILL), ended.stderr
        return ended

    return audit


@pytest.fixture(scope="module")
def undisturbed(audited, tmp_path_factory):
    """The folder of an audit that nobody killed, and how many seconds its shards took."""
    out = tmp_path_factory.mktemp("undisturbed")
    assert audited(out).status == 0
    assert len(contents(out)) == SHARDS + 3  # and settings, fitness and gallery
    begun, done = ((out / f"part-{shard:05d}.parquet").stat() for shard in (0, SHARDS - 1))
    return out, done.st_mtime - begun.st_mtime


def wait_for(out, shards, alive=lambda: True):
    """Return when the settings and so many shards are there."""
    latest = time.monotonic() + 120
    while not (out / "settings.yaml").exists() or len(list(out.glob("*.parquet"))) < shards:
        assert alive()
        assert time.monotonic() < latest, "the audit gets nowhere"
        time.sleep(0.01)


def contents(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def whole_files(out):
    """What is there for good: not what is being written, and what goes when the audit is done."""
    passing = (".", "candidates-", "unfinished-")
    return {name: held for name, held in contents(out).items() if not name.startswith(passing)}


def read_as_records(out):
    """How many shards a reader finds; all of them must be readable."""
    return len([pq.ParquetFile(part).read() for part in out.glob("*.parquet")])


@pytest.mark.harness
def test_killed_at_ten_moments(audited, undisturbed, tmp_path):
    out, (expected, seconds) = tmp_path, undisturbed
    draw = random.Random(0)
    for begun in sorted(draw.sample(range(SHARDS - 3), 10)):
        file = f"part-{begun - 1:05d}.parquet" if begun else "settings.yaml"
        delay = draw.uniform(0, seconds / SHARDS)
        ended = audited(out, f"die_after({str(out / file)!r}, {delay})")
        assert ended.status == -signal.SIGKILL
        # Whatever is there is there as it must be.
        assert begun <= read_as_records(out) < SHARDS
        assert whole_files(out).items() <= contents(expected).items()
    assert audited(out).status == 0
    assert contents(out) == contents(expected)


@pytest.mark.harness
def test_killed_in_the_midst_of_writing(audited, undisturbed, tmp_path):
    expected = contents(undisturbed[0])
    names = ("settings.yaml", "fitness.yaml", "part-00003.parquet", "gallery.safetensors")
    for number, name in enumerate(names):
        for _ in range(2):
            assert audited(tmp_path, f"die_before({name!r})").status == -signal.SIGKILL
            # One torn file is left, also after the second time, and nobody takes it for a whole.
            hidden = [path for path in tmp_path.iterdir() if path.name.startswith(".")]
            torn = [path for path in hidden if path.name != ".lock"]
            assert [path.name.startswith(f".{name}.") for path in torn] == [True]
            assert 0 < torn[0].stat().st_size < len(expected[name])
            assert not (tmp_path / name).exists()
            assert whole_files(tmp_path).items() <= expected.items()
            assert read_as_records(tmp_path) == (0, 0, 3, SHARDS)[number]
    assert audited(tmp_path).status == 0
    assert contents(tmp_path) == expected


@pytest.mark.harness
def test_two_processes_whose_parent_is_gone_end(audited, undisturbed, digits_model, tmp_path):
    script, out = tmp_path / "shared.py", tmp_path / "audit"
    script.write_text(SHARED)
    out.mkdir()
    for mercy, wanted in ((signal.SIGKILL, 3), (signal.SIGINT, 9)):
        with subprocess.Popen(
            [sys.executable, str(script), str(digits_model), str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        ) as parent:
            wait_for(out, wanted, alive=lambda: parent.poll() is None)
            parent.send_signal(mercy)
            # Its children have its standard output: it closes when the last of them is gone.
            parent.communicate(timeout=60)
        assert parent.returncode == -mercy
        assert read_as_records(out) < SHARDS
        assert whole_files(out).items() <= contents(undisturbed[0]).items()
    assert audited(out).status == 0
    assert contents(out) == contents(undisturbed[0])
