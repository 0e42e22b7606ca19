import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from holdfast.audit.faithfulness import Deletion, Insertion
from holdfast.contracts import InputError


@torch.no_grad()
def by_hand(model, image, scores, target, steps, start, goal):
    """The curve and its area, one pixel at a time."""
    pixels = scores.numel()
    order = sorted(range(pixels), key=lambda j: (-float(scores.flatten()[j]), j))
    curve, shares = [], []
    for step in range(steps + 1):
        x = start.clone()
        for j in order[: step * pixels // steps]:
            row, column = divmod(j, scores.shape[1])
            x[:, row, column] = goal[:, row, column]
        curve.append(float(model(x[None]).softmax(1)[0, target]))
        shares.append((step * pixels // steps) / pixels)
    return curve, np.trapezoid(curve, shares)


@pytest.mark.parametrize("steps", [1, 4, 7, 25])
@pytest.mark.parametrize("levels", [2, 1000])
def test_deletion_equals_the_naive_loop(smooth_model, steps, levels):
    images = torch.rand(3, 2, 5, 5).double()
    maps = torch.randint(-levels, levels, (3, 2, 5, 5)).double()
    targets = torch.tensor([2, 0, 3])
    deletion = Deletion(steps=steps, value=0.25)

    curves = deletion.curve(smooth_model, images, maps, targets)
    areas = deletion(smooth_model, images, maps, targets)

    for n in range(3):
        scores = maps[n, 0].abs() + maps[n, 1].abs()
        goal = torch.full_like(images[n], 0.25)
        curve, area = by_hand(smooth_model, images[n], scores, targets[n], steps, images[n], goal)
        assert curves[n].tolist() == pytest.approx(curve, abs=1e-12)
        assert areas[n].item() == pytest.approx(area, abs=1e-12)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 5.0])
def test_insertion_equals_the_naive_loop_from_an_image_blurred_by_scipy(smooth_model, sigma):
    images, maps = torch.rand(2, 2, 5, 5).double(), torch.randn(2, 1, 5, 5).double()
    targets = torch.tensor([1, 3])
    insertion = Insertion(steps=6, sigma=sigma)

    curves = insertion.curve(smooth_model, images, maps, targets)
    areas = insertion(smooth_model, images, maps, targets)

    reach = min(round(3 * sigma), 4)
    for n in range(2):
        blurred = ndimage.gaussian_filter(
            images[n].numpy(), sigma, mode="mirror", radius=reach, axes=(1, 2)
        )
        start = torch.from_numpy(blurred)
        curve, area = by_hand(
            smooth_model, images[n], maps[n, 0].abs(), targets[n], 6, start, images[n]
        )
        assert curves[n].tolist() == pytest.approx(curve, abs=1e-12)
        assert areas[n].item() == pytest.approx(area, abs=1e-12)


def test_blurring_keeps_the_sides_apart():
    model = nn.Sequential(nn.Flatten(), nn.Linear(33, 2)).double()
    images, maps = torch.rand(1, 1, 3, 11).double(), torch.rand(1, 1, 3, 11)
    blurred = ndimage.gaussian_filter(
        images[0, 0].numpy(), 1.5, mode="mirror", radius=(2, 4), axes=(0, 1)
    )
    with torch.no_grad():
        expected = model(torch.from_numpy(blurred)[None]).softmax(1)[0, 1]

    curve = Insertion(steps=3, sigma=1.5).curve(model, images, maps, torch.tensor([1]))

    torch.testing.assert_close(curve[0, 0], expected)


def test_a_map_that_knows_the_model_beats_its_opposite():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[0, :4] = 3  # only the first row counts
    images, right = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    images[:, :, 0], right[:, :, 0] = 0.9, 1
    for method, better in ((Deletion(steps=16), torch.lt), (Insertion(steps=16), torch.gt)):
        good = method(model, images, right, torch.tensor([0]))
        bad = method(model, images, 1 - right, torch.tensor([0]))
        assert better(good, bad).all()


def test_the_ends_of_the_curves(smooth_model):
    images, maps = torch.rand(2, 2, 5, 5).double(), torch.rand(2, 2, 5, 5).double()
    with torch.no_grad():
        predicted = smooth_model(images).softmax(1)
        black = smooth_model(torch.zeros_like(images)).softmax(1)
    chosen = predicted.argmax(1, keepdim=True)

    deleted = Deletion(steps=5).curve(smooth_model, images, maps)
    inserted = Insertion(steps=5).curve(smooth_model, images, maps)

    torch.testing.assert_close(deleted[:, :1], predicted.gather(1, chosen))
    torch.testing.assert_close(deleted[:, -1:], black.gather(1, chosen))
    torch.testing.assert_close(inserted[:, -1:], predicted.gather(1, chosen))


def test_a_constant_map_goes_row_by_row(smooth_model):
    images = torch.rand(1, 2, 5, 5).double()
    rows = torch.arange(25, 0, -1).double().view(1, 1, 5, 5)
    torch.testing.assert_close(
        Deletion(steps=5).curve(smooth_model, images, torch.zeros(1, 1, 5, 5)),
        Deletion(steps=5).curve(smooth_model, images, rows),
    )


@pytest.mark.parametrize("method", [Deletion(steps=3), Insertion(steps=3, sigma=1.0)])
def test_chunks_do_not_change_the_result_and_the_model_is_left_alone(
    method, stateful_model, untouched
):
    images, maps = torch.rand(5, 2, 5, 5), torch.randn(5, 2, 5, 5)
    with untouched(stateful_model):
        together = method(stateful_model, images, maps)
    small = type(method)(**{**vars(method), "chunk": 2})
    torch.testing.assert_close(small(stateful_model, images, maps), together)
    assert together.dtype == torch.float64


@pytest.mark.usefixtures("own_errors")
def test_bad_input_is_refused(smooth_model):
    images, maps = torch.rand(2, 2, 5, 5).double(), torch.rand(2, 2, 5, 5).double()
    with pytest.raises(InputError, match=r"maps: expected shape \(2, C, 5, 5\)"):
        Deletion()(smooth_model, images, maps[:, :, :4])
    with pytest.raises(InputError, match="maps: expected finite"):
        Insertion()(smooth_model, images, maps * torch.nan)
    with pytest.raises(InputError, match="steps: expected at most 25, the pixels of a map, got 26"):
        Insertion(steps=26)(smooth_model, images, maps)
    with pytest.raises(InputError, match="targets: expected classes from 0 to 3, got 4"):
        Deletion(steps=5)(smooth_model, images, maps, torch.tensor([0, 4]))


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (Deletion, {"steps": 0}, "Deletion.steps: expected a number above 0"),
        (Deletion, {"value": 1.5}, r"Deletion.value: expected a number in \[0, 1\]"),
        (Insertion, {"sigma": 0.0}, "Insertion.sigma: expected a number above 0"),
        (Insertion, {"chunk": 0}, "Insertion.chunk: expected a number above 0"),
    ],
)
def test_settings_out_of_range_are_refused(method, settings, message):
    with pytest.raises(InputError, match=message):
        method(**settings)
