import io
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from holdfast.contracts import HoldfastError, InputError
from holdfast.data.framing import Framing
from holdfast.data.images import DecodedImages, EncodedImages, open_image


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def table_of(*contents: bytes | None, path: str | None = None) -> datasets.Dataset:
    entries = [
        None if content is None else {"bytes": content, "path": path} for content in contents
    ]
    features = datasets.Features(image=datasets.Image(decode=False))
    return datasets.Dataset.from_dict({"image": entries}, features=features)


def encoded(*contents: bytes | None, path: str | None = None, **options: Any) -> EncodedImages:
    table = table_of(*contents, path=path)
    return EncodedImages.of(table, "image", list(range(len(contents))), **options)


def test_pixels_are_read_as_they_were_written() -> None:
    pixels = [noise(5, 7, 3, seed=seed) for seed in range(3)]
    images = encoded(*(encode(Image.fromarray(p)) for p in pixels))

    read, sizes = images.read([2, 0])

    assert images.shape == (3, 5, 7)
    assert np.array_equal(read.permute(0, 2, 3, 1).numpy(), np.stack([pixels[2], pixels[0]]))
    assert sizes.tolist() == [[5, 7], [5, 7]]


def test_reading_nothing_gives_nothing() -> None:
    images = encoded(encode(Image.fromarray(noise(5, 7))))
    for kind in (images, images.decode_all()):
        pixels, sizes = kind.read([])
        assert pixels.shape == (0, 1, 5, 7)
        assert sizes.shape == (0, 2)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("side", [8, 100])
def test_memory_holds_the_same_as_reading(side: int, threads: int) -> None:
    images = encoded(
        *(encode(Image.fromarray(noise(side, side, 3, seed=s)), "JPEG") for s in range(5)),
        framing=Framing((side, side)),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        decoded = images.decode_all()
        pixels, sizes = images.read([4, 1, 1])
    finally:
        torch.set_num_threads(before)

    assert isinstance(decoded, DecodedImages)
    assert decoded.shape == images.shape == (3, side, side)
    assert torch.equal(decoded.read([4, 1, 1])[0], pixels)
    assert torch.equal(decoded.read([4, 1, 1])[1], sizes)
    assert not torch.equal(pixels[0], pixels[1])


@pytest.mark.parametrize("shape", [(8, 8, 3), (40, 40, 3), (30, 20, 3), (12, 50)])
def test_resizing_is_bilinear_and_antialiased(shape: tuple[int, ...]) -> None:
    # Waves rather than noise, so that a shifted or an aliased result is far off.
    y, x = np.mgrid[: shape[0], : shape[1]]
    wave = (127 + 60 * np.sin(y / 2) + 60 * np.cos(x / 3)).astype(np.uint8)
    pixels = wave if len(shape) == 2 else np.stack([wave, 255 - wave, wave // 2], axis=-1)

    framing = Framing((16, 16), fit="squash")
    images = encoded(encode(Image.fromarray(pixels)), framing=framing)
    read, sizes = images.read([0])

    original = torch.from_numpy(pixels).view(*shape[:2], -1).permute(2, 0, 1)
    expected = tv.resize(original.float(), [16, 16], antialias=True)
    assert (read[0].float() - expected).abs().max() <= 1
    assert sizes.tolist() == [list(shape[:2])]


def test_images_of_several_sizes_need_a_size() -> None:
    contents = [encode(Image.fromarray(noise(*shape))) for shape in ((5, 7), (7, 5))]

    assert encoded(*contents, framing=Framing((6, 6))).read([0, 1])[0].shape == (2, 1, 6, 6)
    with pytest.raises(InputError, match=r"size: .* image 1 of \(7, 5\) after one of \(5, 7\) pix"):
        encoded(*contents).read([0, 1])


def test_colour_after_grey_needs_channels() -> None:
    contents = [encode(Image.fromarray(noise(*shape))) for shape in ((5, 5), (5, 5, 3))]

    with pytest.raises(InputError, match="channels: .* image 1 in colour after a grey first image"):
        encoded(*contents).read([0, 1])
    assert encoded(*contents, channels=3).shape == (3, 5, 5)
    grey = encoded(*contents, channels=1).read([1])[0]
    red, green, blue = noise(5, 5, 3).astype(float).transpose(2, 0, 1)
    expected = torch.from_numpy(0.299 * red + 0.587 * green + 0.114 * blue)
    assert (grey[0, 0] - expected).abs().max() <= 1


def test_grey_among_colour_is_taken_as_colour() -> None:
    contents = [encode(Image.fromarray(noise(*shape))) for shape in ((5, 5, 3), (5, 5))]
    pixels, _ = encoded(*contents).read([1])
    assert torch.equal(pixels[0], torch.from_numpy(noise(5, 5)).expand(3, 5, 5))


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK", "LA", "1"])
def test_other_kinds_of_pixels_become_grey_or_colour(mode: str) -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[:2] = 255
    image = Image.fromarray(pixels).convert(mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"

    images = encoded(encode(image, kind))

    assert images.shape[0] == (1 if mode in ("LA", "1") else 3)
    read = images.read([0])[0][0].float()
    assert (read[:, :2] > 250).all()
    assert (read[:, 2:] < 5).all()


def test_sixteen_bits_are_scaled_not_cut() -> None:
    deep = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    images = encoded(encode(Image.fromarray(deep)))
    assert images.read([0])[0].tolist() == [[[[0, 1, 128, 255]]]]


def test_a_photo_is_turned_as_its_camera_says() -> None:
    pixels = noise(4, 6)
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright: rotate by 90° clockwise
    images = encoded(encode(Image.fromarray(pixels), exif=turned))
    assert np.array_equal(images.read([0])[0][0, 0].numpy(), np.rot90(pixels, -1))


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    pixels = noise(4, 6)
    Image.fromarray(pixels).save(tmp_path / "a.bmp")
    features = datasets.Features(image=datasets.Image(decode=False))
    entry = {"bytes": None, "path": str(tmp_path / "a.bmp")}
    table = datasets.Dataset.from_dict({"image": [entry]}, features=features)
    images = EncodedImages.of(table, "image", [0])
    assert np.array_equal(images.read([0])[0][0, 0].numpy(), pixels)


@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("broken", ["text", "truncated", "float"])
def test_an_unreadable_image_is_named(broken: str, at: int) -> None:
    good = encode(Image.fromarray(noise(30, 30, 3)))
    bad = {
        "text": b"no image at all",
        "truncated": good[: len(good) // 2],
        "float": encode(Image.fromarray(noise(30, 30).astype(np.float32)), "TIFF"),
    }[broken]
    contents = [good] * at + [bad]
    with pytest.raises(HoldfastError, match=rf"image {at} \(cat.png\) cannot be read"):
        encoded(*contents, path="cat.png").read(range(at + 1))
    with pytest.raises(HoldfastError, match=rf"image {at} cannot be read"):
        encoded(*contents).read(range(at + 1))


def test_a_missing_image_is_named() -> None:
    with pytest.raises(HoldfastError, match="row 1 of the images is empty"):
        encoded(encode(Image.fromarray(noise(3, 3))), None).read([1])


def test_errors_name_the_row_of_the_table() -> None:
    table = table_of(encode(Image.fromarray(noise(3, 3))), b"", b"broken")
    images = EncodedImages.of(table, "image", [0, 2])
    with pytest.raises(HoldfastError, match="image 2 cannot be read"):
        images.decode_all()


def decoded(image: Image.Image, kind: str = "PNG", **options: Any) -> np.ndarray:
    return np.asarray(open_image({"bytes": encode(image, kind, **options), "path": None}, 0))


def test_what_is_transparent_lies_on_white() -> None:
    icon = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
    icon.putpixel((1, 0), (255, 0, 0, 0))
    icon.putpixel((2, 0), (0, 0, 0, 51))
    expected = [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]
    assert decoded(icon).tolist() == expected
    assert decoded(icon, "WEBP", lossless=True, exact=True).tolist() == expected
    grey = Image.new("LA", (2, 1), (0, 255))
    grey.putpixel((1, 0), (0, 0))
    assert decoded(grey).tolist() == [[0, 255]]
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([0, 0, 255, 9, 9, 9])
    palette.putpixel((1, 0), 1)
    assert decoded(palette, transparency=1).tolist() == [[[0, 0, 255], [255, 255, 255]]]
    assert decoded(Image.new("L", (1, 1), 7), transparency=7).tolist() == [[255]]


def test_what_is_opaque_stays_as_it_is() -> None:
    pixels = noise(5, 7, 3)
    opaque = np.dstack([pixels, np.full((5, 7), 255, dtype=np.uint8)])
    assert np.array_equal(decoded(Image.fromarray(opaque)), pixels)


def test_transparency_of_masks_is_not_white() -> None:
    mask = Image.new("LA", (1, 1), (0, 0))
    assert (
        open_image({"bytes": encode(mask), "path": None}, 0, "mask").convert("L").getpixel((0, 0))
        == 0
    )


@pytest.mark.parametrize("kind", ["AVIF", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "ICO"])
def test_formats_that_are_read(kind: str) -> None:
    image = Image.new("RGB", (32, 32), (200, 100, 50))
    found = decoded(image, kind)
    if found.ndim == 2:  # a palette
        found = np.asarray(
            open_image({"bytes": encode(image, kind), "path": None}, 0).convert("RGB")
        )
    assert np.abs(found.astype(int) - [200, 100, 50]).max() < 8


def test_formats_that_would_run_a_program_are_not_read(tmp_path: Path) -> None:
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    with pytest.raises(HoldfastError, match="image 0 cannot be read: it is of no format that is"):
        open_image({"bytes": script, "path": None}, 0)
    (tmp_path / "1.png").write_bytes(script)
    with pytest.raises(HoldfastError, match=r"1.png\) cannot be read: it is of no format"):
        open_image({"bytes": None, "path": str(tmp_path / "1.png")}, 0)


@pytest.mark.parametrize("kind", ["folder", "pipe", "nothing", "loop"])
def test_what_is_no_file_is_no_image(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "1.png"
    make = {"folder": os.mkdir, "pipe": os.mkfifo, "loop": lambda p: os.symlink(p, p)}
    make.get(kind, str)(path)
    with pytest.raises(HoldfastError, match=r"image 3 \(.*1.png\) cannot be read: there is no"):
        open_image({"bytes": None, "path": str(path)}, 3)
