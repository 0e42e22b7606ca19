import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from holdfast.attributions import Gradient, IntegratedGradients
from holdfast.audit import Deletion, Faithfulness, Insertion, Likeness
from holdfast.audit.map_checks import similarities
from holdfast.contracts import Batch, InputError


def classifier(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(50, 9), nn.Tanh(), nn.Linear(9, 4)).double()


@pytest.fixture
def batch():
    torch.manual_seed(5)
    return Batch(images=torch.rand(4, 2, 5, 5).double(), labels=torch.tensor([0, 1, 2, 3]))


def test_faithfulness_is_of_the_predicted_class(batch):
    model, attribution = classifier(0), IntegratedGradients(steps=5)
    insertion, deletion = Insertion(steps=5, sigma=1.0), Deletion(steps=5)
    measures = Faithfulness(attribution, insertion, deletion)(model, batch)
    images, predicted = batch["images"], model(batch["images"]).argmax(1)
    maps = attribution(model, images, predicted)
    assert torch.equal(measures["insertion"], insertion(model, images, maps, predicted))
    # Deletion written out: five pixels at a time, trapezoids between.
    for n in range(4):
        order = maps[n].abs().sum(0).flatten().argsort(descending=True)
        curve = []
        for count in range(0, 26, 5):
            image = images[n].clone().flatten(1)
            image[:, order[:count]] = 0
            logits = model(image.view(1, 2, 5, 5))
            curve.append(logits.softmax(1)[0, predicted[n]].item())
        area = np.trapezoid(curve, dx=0.2) if hasattr(np, "trapezoid") else np.trapz(curve, dx=0.2)
        assert measures["deletion"][n].item() == pytest.approx(area)


def test_likeness_compares_the_labels_maps_of_two_models(batch):
    model, other = classifier(0), classifier(1)
    measures = Likeness(Gradient(), other, k=6)(model, batch)
    for n in range(4):
        scores = []
        for one in (model, other):
            x = batch["images"][n].clone().requires_grad_(True)
            one(x[None])[0, batch["labels"][n]].backward()
            scores.append(x.grad.abs().sum(0).flatten().numpy())
        assert measures["kendall_tau"][n].item() == pytest.approx(stats.kendalltau(*scores)[0])
        assert measures["spearman_rho"][n].item() == pytest.approx(stats.spearmanr(*scores)[0])
        top = [set(np.argsort(-s)[:6].tolist()) for s in scores]
        assert measures["top_k_intersection"][n].item() == pytest.approx(len(top[0] & top[1]) / 6)


def test_likeness_shows_the_references_class_alone():
    assert repr(Likeness(Gradient(), nn.Flatten(), k=3)).endswith("reference=Flatten, k=3)")


def test_similarities_of_a_map_with_itself():
    maps = torch.rand(3, 2, 4, 4)
    assert all((values == 1).all() for values in similarities(maps, maps.clone(), k=5).values())


def test_refuses_settings(own_errors):
    with pytest.raises(InputError, match="Likeness.reference: expected an nn.Module, got str"):
        Likeness(Gradient(), "runs/natural")
    with pytest.raises(InputError, match="Likeness.k"):
        Likeness(Gradient(), nn.Flatten(), k=0)
