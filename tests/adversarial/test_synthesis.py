import pytest
import torch
from torch import nn

from holdfast.adversarial import class_seeds, synthesize
from holdfast.contracts import InputError


def test_climbs_a_linear_logit_straight_along_its_weights():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    seeds = torch.full((3, 1, 2, 2), 0.5, dtype=torch.float64)
    classes = torch.tensor([0, 1, 2])
    made = synthesize(model, seeds, classes, eps=0.1, step_size=0.02, steps=3)
    direction = nn.functional.normalize(model[1].weight.detach(), dim=1).view(3, 1, 2, 2)
    assert torch.allclose(made, seeds + 0.06 * direction)
    far = synthesize(model, seeds, classes, eps=0.1, step_size=0.02, steps=30)
    assert torch.allclose(far, seeds + 0.1 * direction)


def test_raises_the_class_and_stays_in_range(relu_model):
    seeds = torch.rand(5, 2, 5, 5, dtype=torch.float64)
    classes = torch.tensor([0, 1, 2, 3, 0])
    made = synthesize(relu_model, seeds, classes, eps=3.0, step_size=0.2, steps=30, chunk=2)
    before, after = (relu_model(x).gather(1, classes[:, None]) for x in (seeds, made))
    assert (after > before).all()
    assert made.min() >= 0
    assert made.max() <= 1


def test_leaves_the_model_as_it_was(stateful_model, untouched):
    with untouched(stateful_model):
        synthesize(stateful_model, torch.rand(2, 2, 5, 5), torch.tensor([0, 1]), steps=2)


def test_seeds_have_the_mean_and_covariance_of_their_class():
    torch.manual_seed(0)
    first = 0.4 + 0.05 * torch.randn(50, 3, dtype=torch.float64)
    first[:, 2] = 0.6 * first[:, 0] + 0.4 * first[:, 1]
    images = torch.cat([first, torch.rand(20, 3, dtype=torch.float64)])[:, None, None]
    labels = torch.tensor([1] * 50 + [0] * 20)
    drawn = class_seeds(images, labels, torch.ones(20_000, dtype=torch.long)).flatten(1)
    assert torch.allclose(drawn.mean(0), first.mean(0), atol=0.002)
    assert torch.allclose(drawn.T.cov(), first.T.cov(), atol=2e-4)


def test_a_class_with_one_image_is_that_image():
    images = torch.rand(2, 1, 2, 2)
    drawn = class_seeds(images, torch.tensor([0, 1]), torch.tensor([1, 0]))
    assert torch.allclose(drawn, images.flip(0))


def test_says_which_class_is_missing(own_errors):
    with pytest.raises(InputError, match="classes: expected classes that occur in labels, got 3"):
        class_seeds(torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), torch.tensor([3]))


def test_refuses_classes_that_the_model_has_not(relu_model, own_errors):
    seeds = torch.rand(1, 2, 5, 5, dtype=torch.float64)
    with pytest.raises(InputError, match="classes: expected classes from 0 to 3, got 4"):
        synthesize(relu_model, seeds, torch.tensor([4]))
