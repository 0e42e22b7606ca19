import pytest
import torch

from holdfast.adversarial import BoundaryPipeline, BoundarySearch, SmoothedPGD
from holdfast.contracts import StuckWarning

SEARCHES = {
    "ours": BoundarySearch(steps=3, scout_steps=3, restarts=1, restart_steps=1),
    "pipeline": BoundaryPipeline(("pgd",), (0.5,), None, steps=4),
    "smoothed": SmoothedPGD(eps=0.5, steps=4),
}


@pytest.fixture(params=list(SEARCHES))
def search(request):
    """Called with model, images and labels; of the smoothed one the noise is given."""
    method = SEARCHES[request.param]
    if request.param != "smoothed":
        return method
    noise = 0.01 * torch.randn(3, 2, 5, 4, generator=torch.Generator().manual_seed(0)).double()
    return lambda model, images, labels=None: method(model, images, noise, labels)


@pytest.fixture
def images():
    return torch.rand(3, 2, 5, 4, dtype=torch.float64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda images, labels: (images + 2, labels), "images: "),
        (lambda images, labels: (images[0], labels), "images: "),
        (lambda images, labels: (images.half(), labels), "images: "),
        (lambda images, labels: (images, labels[:2]), "labels: "),
    ],
)
def test_refuses_what_is_no_batch(search, images, change, said, own_errors):
    labels = torch.zeros(3, dtype=torch.long)
    with pytest.raises(own_errors, match=said):
        search(torch.nn.Flatten(), *change(images, labels))


def test_warns_of_a_model_without_gradient(search, images):
    class Constant(torch.nn.Module):
        def forward(self, x):
            return torch.tensor([[1.0, 0.0]]).to(x).expand(len(x), 2) + 0 * x.flatten(1)[:, :1]

    with pytest.warns(StuckWarning):
        assert not search(Constant(), images).found.any()
