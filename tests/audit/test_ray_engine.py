"""Work that Ray shares out on this machine; what a cluster does is in test_ray_audit.py."""

import os
import sys

import pytest
import torch

from holdfast.audit.ray_engine import share_out
from holdfast.contracts import HoldfastError, InputError


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_nothing_to_do_starts_nothing():
    assert list(share_out(root, [])) == []


def root(number):
    return number**0.5, os.getcwd(), sys.path, torch.get_num_threads()


def fail(error):
    raise error


@pytest.mark.harness
class TestOnThisMachine:
    """Ray starts and ends with the call."""

    @pytest.fixture(autouse=True)
    def _ray(self):
        pytest.importorskip("ray", reason="needs holdfast[ray]")

    def test_items_come_back_with_their_results(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("SLURM_PROCID", "1")
        for name in ("torch", "numpy", "json", "pyarrow", "typing"):
            (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
        found = dict(share_out(root, [1, 4, 9]))
        assert {item: one[0] for item, one in found.items()} == {1: 1.0, 4: 2.0, 9: 3.0}
        assert {one[1] for one in found.values()} == {str(tmp_path)}
        assert {one[3] for one in found.values()} == {1}
        assert not any(str(tmp_path) in one[2] for one in found.values())
        assert not (tmp_path / "marker").exists()

    def test_errors(self):
        with pytest.raises(InputError) as caught:
            dict(share_out(fail, [InputError("mine", 1, "another")]))
        assert (caught.value.argument, caught.value.came) == ("mine", 1)
        with pytest.raises(
            HoldfastError, match=r"^piece 'mine' failed \(KeyError: 'mine'\); what is"
        ):
            dict(share_out(fail, [KeyError("mine")]))
        with pytest.raises(HoldfastError, match=r"piece 3 was lost \(.*\); what is done is kept"):
            dict(share_out(os._exit, [3], retries=0))
        with pytest.raises(
            HoldfastError, match="no machine of the Ray cluster has 1 CPU and 4 GPU"
        ):
            dict(share_out(root, [1], gpus=4.0))
        with pytest.raises(HoldfastError, match="Ray cannot be reached at 127.0.0.1:1 "):
            dict(share_out(root, [1], address="127.0.0.1:1"))
        with pytest.raises(InputError, match="work: expected what can be sent"):
            dict(share_out(lambda item: item, [1]))
