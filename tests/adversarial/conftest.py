"""What attacks are tried on: models whose best attack is known, and a trained network."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn


@pytest.fixture
def linear():
    """A float64 classifier of 1×5×6 images, linear in the pixels; only two of 4 classes win."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 4)).double()
    with torch.no_grad():
        model[1].weight[2:] = 0
        model[1].bias[2:] = -10
    return model


@pytest.fixture
def greys():
    """Images in the middle of [0, 1], where small balls are not cut."""
    return 0.4 + 0.2 * torch.rand(5, 1, 5, 6, dtype=torch.float64)


@pytest.fixture
def thresholds():
    """Compute how far a linear model lets each image go: at which ε the best attack succeeds."""

    def compute(model, images, labels, norm):
        weight, logits = model[1].weight.detach(), model(images).detach()
        found = []
        for row, y in zip(logits, labels.tolist(), strict=True):
            lengths = {
                k: (weight[y] - weight[k]).norm(p=1 if norm == "linf" else 2)
                for k in range(4)
                if k != y
            }
            found.append(min(float((row[y] - row[k]) / size) for k, size in lengths.items()))
        return torch.tensor(found, dtype=torch.float64)

    return compute


@pytest.fixture(scope="session")
def digits():
    """100 digits of 8×8 pixels with labels, and a network that gets nearly all of them right."""
    torch.manual_seed(0)
    pixels, classes = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    labels = torch.tensor(classes)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    rest = torch.cat([torch.arange(1000), torch.arange(1100, len(images))])
    adam = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        adam.zero_grad()
        nn.functional.cross_entropy(model(images[rest]), labels[rest]).backward()
        adam.step()
    model.zero_grad()
    return model, images[1000:1100], labels[1000:1100]


@pytest.fixture
def half_fooled(smooth_model):
    """Images of which some fall at once, some late, and the second is wrong from the start."""
    images = torch.rand(12, 2, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        smooth_model[-1].weight *= 5
    labels = smooth_model(images).argmax(1)
    labels[1] = (labels[1] + 1) % 4
    return images, labels
