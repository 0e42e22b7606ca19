import pytest
import torch

from holdfast.objectives import Natural


def test_is_the_mean_cross_entropy(smooth_model):
    images, labels = torch.rand(3, 2, 5, 5).double(), torch.tensor([0, 3, 1])
    p = smooth_model(images).exp()
    expected = -sum((p[i, y] / p[i].sum()).log() for i, y in enumerate(labels)) / 3
    loss = Natural()(smooth_model, {"images": images, "labels": labels})["loss"]
    assert loss.item() == pytest.approx(expected.item())
