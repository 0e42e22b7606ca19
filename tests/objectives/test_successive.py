from dataclasses import dataclass

import pytest
import torch
from torch import nn

from holdfast.contracts import InputError
from holdfast.objectives import Successive


@dataclass(frozen=True)
class Named:
    value: float

    def __call__(self, model, batch):
        return {"loss": torch.tensor(self.value), "epoch": torch.tensor(batch["epoch"])}


@pytest.mark.parametrize(
    ("share", "progress", "turn"),
    [(0.5, 0.0, 1), (0.5, 0.49, 1), (0.5, 0.5, 2), (0.5, 1.0, 2), (0.0, 0.0, 2), (1.0, 0.99, 1)],
)
def test_whose_turn_it_is(share, progress, turn):
    objective = Successive(Named(1.0), Named(2.0), share)
    batch = {"images": torch.zeros(1, 1, 1, 1), "labels": torch.tensor([0])}
    terms = objective(nn.Identity(), batch | {"progress": progress, "epoch": 5})
    assert terms == {"loss": turn, "epoch": 5}


@pytest.mark.parametrize("progress", [-0.1, 1.5, float("nan")])
def test_refuses_a_progress_that_is_none(progress):
    batch = {"images": torch.zeros(1, 1, 1, 1), "labels": torch.tensor([0]), "progress": progress}
    with pytest.raises(InputError, match=r"batch\['progress'\]: expected the share"):
        Successive(Named(1.0), Named(2.0))(nn.Identity(), batch)


def test_refuses_a_batch_without_progress():
    with pytest.raises(InputError, match="an entry 'progress', got images"):
        Successive(Named(1.0), Named(2.0))(nn.Identity(), {"images": torch.zeros(1, 1, 1, 1)})


def test_refuses_a_share_that_is_none(own_errors):
    with pytest.raises(InputError, match=r"Successive.share"):
        Successive(Named(1.0), Named(2.0), share=50.0)
