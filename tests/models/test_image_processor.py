import numpy as np
import pytest
import torch

from holdfast.contracts import HoldfastError
from holdfast.models.image_processor import _picture, read_processor

transformers = pytest.importorskip("transformers")


def cropped(short, side):
    return {"size": {"shortest_edge": short}, "crop_size": {"height": side, "width": side}}


def squashed(side):
    return {"size": {"height": side, "width": side}}


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("ViTImageProcessor", squashed(48), "squashed to 48×48 (bilinear)"),
        ("BitImageProcessor", cropped(60, 48), "short side to 60 (bicubic), centre 48×48"),
        ("CLIPImageProcessor", cropped(48, 48), "short side to 48 (bicubic), centre 48×48"),
        (
            "DeiTImageProcessor",
            squashed(64) | {"crop_size": {"height": 48, "width": 48}},
            "squashed to 64×64 (bicubic), centre 48×48",
        ),
        (
            "ConvNextImageProcessor",
            {"size": {"shortest_edge": 48}, "crop_pct": 0.8},
            "short side to 60 (bicubic), centre 48×48",
        ),
        (
            "ConvNextImageProcessor",
            {"size": {"shortest_edge": 384}},
            "squashed to 384×384 (bicubic)",
        ),
        (
            "ConvNextImageProcessor",  # an odd margin
            {"size": {"shortest_edge": 24}},
            "short side to 27 (bicubic), centre 24×24",
        ),
        ("LevitImageProcessor", cropped(49, 48), "short side to 56 (bicubic), centre 48×48"),
        ("PoolFormerImageProcessor", cropped(48, 48), "short side to 53 (bicubic), centre 48×48"),
        ("EfficientNetImageProcessor", squashed(48), "squashed to 48×48 (bicubic)"),
        (
            "EfficientNetImageProcessor",
            squashed(48) | {"rescale_factor": 1 / 127.5, "rescale_offset": True},
            "squashed to 48×48 (bicubic)",
        ),
        ("MobileViTImageProcessor", cropped(54, 48), "short side to 54 (bicubic), centre 48×48"),
        ("MobileNetV2ImageProcessor", cropped(54, 48), "short side to 54 (bilinear), centre 48×48"),
        ("SiglipImageProcessor", squashed(48) | {"resample": 2}, "squashed to 48×48 (bilinear)"),
        (
            "ViTImageProcessor",
            squashed(48) | {"do_normalize": False},
            "squashed to 48×48 (bilinear)",
        ),
        ("ViTImageProcessor", squashed(48) | {"do_rescale": False}, "squashed to 48×48 (bilinear)"),
    ],
)
def test_does_what_the_processor_does(kind, settings, said):
    processor = getattr(transformers, kind)(**settings)
    read = read_processor(processor, 3, "hf:mine")
    assert str(read.preprocessing) == said
    # Another picture than the one that it was checked on.
    picture = _picture(3).transpose(2).resize((90, 70))
    seen = torch.from_numpy(np.array(read.preprocessing.apply(picture))).permute(2, 0, 1) / 255
    mean = torch.tensor(read.mean or (0.0,)).view(-1, 1, 1)
    std = torch.tensor(read.std or (1.0,)).view(-1, 1, 1)
    seen = (seen - mean) / std
    theirs = processor(picture, return_tensors="pt")["pixel_values"][0]
    difference = ((seen.flip(0) if read.bgr else seen) - theirs) * std
    # Half a pixel may be rounded otherwise.
    odd = read.preprocessing.resize and (read.preprocessing.resize - read.preprocessing.size[0]) % 2
    assert difference.abs().mean() < (0.05 if odd else 0.01)
    assert read.bgr == (kind == "MobileViTImageProcessor")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ViTImageProcessor", {"size": {"shortest_edge": 48}}),  # images of any width
        ("PerceiverImageProcessor", {}),  # crops before it resizes
        ("Siglip2ImageProcessor", {}),  # patches
        ("ImageGPTImageProcessor", {}),  # tokens
    ],
)
@pytest.mark.usefixtures("own_errors")
def test_refuses_what_it_cannot_do(kind, settings):
    processor = getattr(transformers, kind)(**settings)
    with pytest.raises(
        HoldfastError, match=f"the {kind}.* of hf:mine does what Holdfast cannot do"
    ):
        read_processor(processor, 3, "hf:mine")


def test_a_processor_of_other_pixels_is_noticed():
    class Mirrored(transformers.ViTImageProcessor):
        def resize(self, image, *arguments, **settings):
            return super().resize(image, *arguments, **settings).flip(-1)

    with pytest.raises(HoldfastError, match="its pixels are not those that Holdfast makes"):
        read_processor(Mirrored(**squashed(48)), 3, "hf:mine")
