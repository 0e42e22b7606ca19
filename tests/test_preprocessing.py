import numpy as np
import pytest
import torchvision
from PIL import Image
from torchvision.transforms import v2

from holdfast.contracts import InputError
from holdfast.preprocessing import Preprocessing


def photograph(width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height // 5, width // 5, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height))


@pytest.mark.parametrize("shape", [(90, 60), (61, 90), (64, 64)])
@pytest.mark.parametrize(
    ("preprocessing", "steps"),
    [
        (Preprocessing((48, 48), 55), [v2.Resize(55), v2.CenterCrop(48)]),
        (Preprocessing((48, 48)), [v2.Resize(48), v2.CenterCrop(48)]),
        (Preprocessing((48, 48), 39), [v2.Resize(39), v2.CenterCrop(48)]),  # black around it
        (
            Preprocessing((48, 32), mode="squash", interpolation="bicubic"),
            [v2.Resize((48, 32), v2.InterpolationMode.BICUBIC)],
        ),
        (Preprocessing((48, 48), 55, "squash"), [v2.Resize((55, 55)), v2.CenterCrop(48)]),
    ],
)
def test_makes_the_pixels_that_torchvision_makes(preprocessing, steps, shape):
    image = photograph(*shape)
    made, expected = preprocessing.apply(image), v2.Compose(steps)(image)
    assert np.array_equal(np.asarray(made), np.asarray(expected))


def test_makes_what_published_weights_ask_for():
    weights = torchvision.models.ResNet50_Weights.IMAGENET1K_V2
    wanted = weights.transforms()
    image = photograph(300, 260)
    made = Preprocessing((224, 224), 232).apply(image)
    tensor = v2.functional.normalize(
        v2.functional.to_dtype(v2.functional.pil_to_tensor(made), scale=True) * 1.0,
        wanted.mean,
        wanted.std,
    )
    assert (tensor - wanted(image)).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({"size": (0, 8)}, "size"),
        ({"size": (8, 8), "resize": 0}, "resize"),
        ({"size": (8, 8), "channels": 0}, "channels"),
        ({"size": (8, 8), "mode": "border"}, "mode"),
        ({"size": (8, 8), "interpolation": "random"}, "interpolation"),
    ],
)
@pytest.mark.usefixtures("own_errors")
def test_refuses(settings, argument):
    with pytest.raises(InputError, match=f"Preprocessing.{argument}"):
        Preprocessing(**settings)
