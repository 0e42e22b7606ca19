"""Audits with Ray: the records of one process, whoever made them and whoever was lost."""

import dataclasses
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from holdfast.adversarial import PGD
from holdfast.attributions import IntegratedGradients
from holdfast.audit import Audit, audit_on_ray
from holdfast.contracts import HoldfastError, InputError
from holdfast.data import ImageData
from holdfast.manipulation import TopK
from holdfast.training import load

AUDIT = Audit(
    attacks={"pgd": PGD(eps=0.1, step_size=0.05, steps=3)},
    manipulations={
        "top_k/integrated_gradients": TopK(
            IntegratedGradients(steps=4), k=20, eps=0.1, step_size=0.03, steps=40
        )
    },
    k=20,
    gallery=3,
    shard=5,
)
DATA = partial(ImageData("digits", limit=60).load, "test")
SHARDS = 12


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Audit on processors, each task on one thread, whatever the machine has."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_refuses_what_cannot_be(tmp_path, digits_model):
    audit = partial(audit_on_ray, AUDIT, load_data=DATA, out=tmp_path)
    with pytest.raises(InputError, match="gpus: expected at least 0, got -1.0"):
        audit(partial(load, digits_model), gpus=-1.0)
    with pytest.raises(InputError, match="retries: expected at least 0, got -2"):
        audit(partial(load, digits_model), retries=-2)


def test_says_how_to_install_it(tmp_path, digits_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(HoldfastError, match=r"^ray is not installed: pip install 'holdfast\[ray\]"):
        audit_on_ray(AUDIT, partial(load, digits_model), DATA, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # all on this machine
    ray = pytest.importorskip("ray", reason="needs holdfast[ray]")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"include_dashboard": False, "node_ip_address": "127.0.0.1"}
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **quiet})
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.harness
def test_one_of_two_machines_is_killed_half_way(cluster, digits_model, tmp_path):
    model = partial(load, digits_model)
    alone = AUDIT(model(), DATA(), tmp_path / "alone", progress=False)
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    out, killed = tmp_path / "out", []

    def kill():
        while len(list(out.glob("part-*"))) < 3:
            time.sleep(0.01)
        cluster.remove_node(nodes[1], allow_graceful=False)
        killed.append(len(list(out.glob("part-*"))))

    threading.Thread(target=kill, daemon=True).start()
    records = audit_on_ray(AUDIT, model, DATA, out, address=cluster.address, progress=False)
    assert killed[0] < SHARDS
    assert records.equals(alone)
    assert contents(out) == contents(tmp_path / "alone")
    # What is done is not done again, whoever did it.
    (out / "part-00003.parquet").unlink()
    (out / "gallery.safetensors").unlink()
    assert AUDIT(model(), DATA(), out, progress=False).equals(alone)
    other = dataclasses.replace(AUDIT, seed=1)
    with pytest.raises(HoldfastError, match="other settings"):
        audit_on_ray(other, model, DATA, out, address=cluster.address, progress=False)
