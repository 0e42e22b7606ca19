"""What holds for every test and every example in a docstring."""

import os

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    # Two workers on two cores: one thread each, or they fight over the cores.
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # and for the processes that tests start


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
