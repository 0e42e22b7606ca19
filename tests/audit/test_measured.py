from dataclasses import dataclass

import torch
from torch import nn

from holdfast.attributions import SmoothGrad
from holdfast.audit.map_checks import similarities
from holdfast.audit.measured import after_manipulation
from holdfast.audit.yardsticks import Yardsticks
from holdfast.contracts import Outcome


def test_maps_before_and_after_share_their_draws():
    """A manipulation that does nothing changes no map, however much that is drawn at random."""

    @dataclass(frozen=True)
    class Nudge:
        attribution: SmoothGrad = SmoothGrad(samples=2, noise=0.5)

        def __call__(self, model, images, labels):
            one = torch.ones(len(images))
            return Outcome((images - 1e-6).clamp(0, 1), one, torch.tensor([True, True, False]))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.Tanh(), nn.Linear(30, 2))
    images, labels = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 1])
    measures, outcome = after_manipulation(Nudge(), Yardsticks(model, images, labels, k=5))
    assert measures["kendall_tau"][:2].min() > 0.99
    assert measures["kendall_tau"][2].isnan()
    other = SmoothGrad(samples=2, noise=0.5, seed=1)(model, images, labels)
    drawn = similarities(outcome["before"], other, 5)["kendall_tau"]
    assert drawn.max() < 0.9  # what draws of their own would do
    # What is handed on is what was measured.
    again = similarities(outcome["before"], outcome["maps"], 5)["kendall_tau"]
    assert again[:2].tolist() == measures["kendall_tau"][:2].tolist()
    assert torch.equal(outcome["maps"][2], outcome["before"][2])
