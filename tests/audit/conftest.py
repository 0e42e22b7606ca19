"""Fixtures shared by the tests of audits."""

from pathlib import Path

import pytest
import torch
from torch import nn

from holdfast.data import ImageData
from holdfast.models import Architecture
from holdfast.training import save


@pytest.fixture(scope="session")
def digits_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a classifier trained a little: some digits are right for it and some wrong."""
    file = tmp_path_factory.mktemp("digits") / "model.safetensors"
    train = ImageData("digits", limit=200).load("train").batch(range(200))
    architecture = Architecture("mlp", classes=10, size=16, in_channels=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = architecture.build()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(15):
        loss = nn.functional.cross_entropy(model(train["images"]), train["labels"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save(model, file, architecture=architecture, classes=[str(digit) for digit in range(10)])
    return file
