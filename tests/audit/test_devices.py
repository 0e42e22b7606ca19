import dataclasses
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from holdfast.adversarial import PGD
from holdfast.attributions import Gradient, IntegratedGradients
from holdfast.audit import Audit, Likeness, devices
from holdfast.audit.devices import audit_on
from holdfast.contracts import HoldfastError, InputError
from holdfast.data import ImageData
from holdfast.manipulation import TopK
from holdfast.training import load

AUDIT = Audit(
    attacks={"pgd": PGD(eps=0.1, step_size=0.05, steps=3)},
    manipulations={
        "top_k/integrated_gradients": TopK(
            IntegratedGradients(steps=4), k=20, eps=0.1, step_size=0.03, steps=4
        )
    },
    k=20,
    gallery=3,
    shard=8,
)
DATA = partial(ImageData("digits", limit=20).load, "test")
LAUNCHED = """
import os
import sys
from functools import partial
from pathlib import Path
from test_devices import AUDIT, DATA
from holdfast.audit.devices import audit_on
from holdfast.training import load

if __name__ == "__main__":
    records = audit_on(1, AUDIT, partial(load, sys.argv[1]), DATA, sys.argv[2], progress=True)
    Path(sys.argv[2], f"rows-{os.environ['RANK']}").write_text(str(records.num_rows))
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Audit on processors, each process on one thread, whatever the machine has."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # for the processes that are started
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def contents(folder):
    """What every file holds, and what there is."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture
def forked(monkeypatch):
    """Fork the processes, which costs them their imports; others here start them as users do."""
    start = devices.start_processes
    monkeypatch.setattr(
        devices,
        "start_processes",
        lambda *given, **named: start(*given, **{**named, "start_method": "fork"}),
    )


@pytest.fixture(scope="module")
def alone_made(digits_model, tmp_path_factory):
    """The records of one process, and its folder."""
    folder = tmp_path_factory.mktemp("one")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    records = AUDIT(load(digits_model), DATA(), folder, progress=False)
    torch.set_num_threads(threads)
    return records, folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [1, *(pytest.param(n, marks=pytest.mark.harness) for n in (2, 3))]
)
def test_any_number_of_processes_has_the_records_of_one(number, digits_model, alone_made, tmp_path):
    records = audit_on(number, AUDIT, partial(load, digits_model), DATA, tmp_path, progress=False)
    assert records.equals(alone_made[0])
    assert contents(tmp_path) == contents(alone_made[1])
    rows = records.to_pylist()
    counted = Counter((row["index"], row["check"], row["measure"]) for row in rows)
    assert set(counted.values()) == {1}
    for check in ("clean", "pgd"):
        assert {row["index"] for row in rows if row["check"] == check} == set(range(20))
    assert not active_children()


@pytest.mark.slow
def test_processes_without_a_shard_do_no_harm(digits_model, tmp_path):
    audit = dataclasses.replace(AUDIT, shard=50, manipulations={})
    one = audit(load(digits_model), DATA(), tmp_path / "one", progress=False)
    two = audit_on(2, audit, partial(load, digits_model), DATA, tmp_path / "two", progress=False)
    assert two.equals(one)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.harness
def test_goes_on_with_another_number_of_processes(digits_model, alone_made, tmp_path, capsys):
    shutil.copytree(alone_made[1], tmp_path, dirs_exist_ok=True)
    for lost in ("part-00000.parquet", "part-00002.parquet", "gallery.safetensors"):
        (tmp_path / lost).unlink()
    records = audit_on(2, AUDIT, partial(load, digits_model), DATA, tmp_path)
    assert records.equals(alone_made[0])
    assert contents(tmp_path) == contents(alone_made[1])
    assert "Auditing digits" in (shown := capsys.readouterr().out)
    assert "3 of 3 shards" in shown


def test_a_process_that_dies_ends_all(forked, digits_model, tmp_path):
    endless = dataclasses.replace(AUDIT, attacks={"pgd": PGD(0.1, 0.05, steps=10**9)})
    with ThreadPoolExecutor(1) as pool:
        audited = pool.submit(
            audit_on, 2, endless, partial(load, digits_model), DATA, tmp_path, progress=False
        )
        while len(active_children()) < 2:
            assert not audited.done()
            time.sleep(0.05)
        first, second = sorted(active_children(), key=lambda process: process.pid)
        os.kill(second.pid, signal.SIGKILL)
        error = audited.exception(timeout=60)
    assert isinstance(error, HoldfastError)
    assert re.match("process 1 of 2 was ended by signal 9; the others were stopped", str(error))
    assert not first.is_alive()
    assert not active_children()


@pytest.mark.slow
@pytest.mark.harness
def test_an_error_in_a_process_is_the_callers(digits_model, tmp_path):
    audit = partial(audit_on, 2, AUDIT, load_data=DATA, out=tmp_path, progress=False)
    with pytest.raises(HoldfastError) as theirs:
        audit(partial(load, tmp_path / "none"))
    with pytest.raises(HoldfastError) as ours:
        load(tmp_path / "none")
    assert str(theirs.value) == str(ours.value)
    assert not contents(tmp_path)


def fails_elsewhere(load, error):
    """Load in the process of the tests, and fail in others."""
    if multiprocessing.parent_process() is None:
        return load()
    raise error


def test_an_error_in_a_worker_alone_is_the_callers_too(forked, digits_model, tmp_path):
    def failing(error):
        model = partial(fails_elsewhere, partial(load, digits_model), error)
        return audit_on(2, AUDIT, model, DATA, tmp_path, progress=False)

    with pytest.raises(InputError) as caught:
        failing(InputError("mine", 1, "another"))
    assert (caught.value.argument, caught.value.came, caught.value.expected) == (
        "mine",
        1,
        "another",
    )
    with pytest.raises(HoldfastError, match=r"process [01] of 2 failed \(KeyError: 'mine'\); the"):
        failing(KeyError("mine"))
    assert not active_children()
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("number", [0, -1])
def test_refuses_no_devices(number, digits_model, tmp_path):
    with pytest.raises(InputError, match=f"devices: expected at least 1, got {number}"):
        audit_on(number, AUDIT, partial(load, digits_model), DATA, tmp_path)


@pytest.mark.parametrize("number", [4 * os.cpu_count() + 1, 99999999999])
def test_refuses_more_processes_than_the_machine_bears(number, digits_model, tmp_path):
    with pytest.raises(
        InputError, match=f"devices: expected at most .* processors here, got {number}"
    ):
        audit_on(number, AUDIT, partial(load, digits_model), DATA, tmp_path)
    assert not contents(tmp_path)


def test_refuses_more_devices_than_gpus(digits_model, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(
        InputError, match="devices: expected at most 2, the number of GPUs here, go"
    ):
        audit_on(3, AUDIT, partial(load, digits_model), DATA, tmp_path)


@pytest.mark.parametrize("argument", ["load_model", "load_data"])
def test_refuses_what_cannot_be_sent(argument, digits_model, tmp_path):
    given = {"load_model": partial(load, digits_model), "load_data": DATA}
    with pytest.raises(InputError, match=f"{argument}: expected what can be sent to another proce"):
        audit_on(2, AUDIT, **{**given, argument: lambda: None}, out=tmp_path)


def test_warns_when_threads_crowd(digits_model, tmp_path, monkeypatch):
    nothing = partial(ImageData("no/such/folder").load, "test")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    torch.set_num_threads(2)
    with pytest.warns(UserWarning, match="2 processes with 2 threads"), pytest.raises(InputError):
        audit_on(2, AUDIT, partial(load, digits_model), nothing, tmp_path)
    torch.set_num_threads(1)
    with warnings.catch_warnings(action="error"), pytest.raises(InputError):
        audit_on(2, AUDIT, partial(load, digits_model), nothing, tmp_path)


def test_models_within_the_audit_come_to_the_device_and_the_callers_stay():
    reference = nn.Linear(4, 2)
    audit = Audit(checks={"likeness/gradient": Likeness(Gradient(), reference, k=2)})
    placed = devices.placed(audit, torch.device("meta"))  # the one other device everywhere
    assert placed.checks["likeness/gradient"].reference.weight.device.type == "meta"
    assert reference.weight.device.type == "cpu"
    assert placed.attacks == audit.attacks


def test_each_process_of_a_launcher_takes_its_share(digits_model, alone_made, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    def launched(rank):
        os.environ.update(launcher, RANK=str(rank), LOCAL_RANK=str(rank))
        model = partial(load, digits_model)
        records = audit_on(1, AUDIT, model, DATA, tmp_path / "audit", progress=False)
        (tmp_path / f"rows-{rank}").write_text(str(records.num_rows))

    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=launched, args=(rank,)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    assert [process.exitcode for process in ranks] == [0, 0]
    assert contents(tmp_path / "audit") == contents(alone_made[1])
    # Rank 0 has all records in the end, rank 1 those of the second of three shards.
    second = pq.ParquetFile(alone_made[1] / "part-00001.parquet").read()
    rows = [int((tmp_path / f"rows-{rank}").read_text()) for rank in (0, 1)]
    assert rows == [alone_made[0].num_rows, second.num_rows]


@pytest.mark.harness
def test_torchrun_starts_the_processes(digits_model, alone_made, tmp_path):
    script = tmp_path / "launched.py"
    script.write_text(LAUNCHED)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(script), str(digits_model), str(tmp_path / "audit")],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 of 3 shards") == 1
    rows = [int((tmp_path / "audit" / f"rows-{rank}").read_text()) for rank in (0, 1)]
    for rank in (0, 1):
        (tmp_path / "audit" / f"rows-{rank}").unlink()
    assert contents(tmp_path / "audit") == contents(alone_made[1])
    # Rank 0 has all records in the end, rank 1 those of the second of three shards.
    second = pq.ParquetFile(alone_made[1] / "part-00001.parquet").read()
    assert rows == [alone_made[0].num_rows, second.num_rows]
