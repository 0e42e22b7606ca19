"""Removing the pixels that maps name from the images of a whole data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torchvision.io import encode_png

from holdfast.contracts import Batch, InputError, check_images, chunks, generators
from holdfast.data import ImageData, ImageDataset
from holdfast.files import whole
from holdfast.metrics import pixel_scores
from holdfast.metrics.scores import check_finite

__all__ = [
    "SHARD",
    "check_maps",
    "fill_first",
    "mean_colour",
    "rank_by_chance",
    "rank_pixels",
    "remove_pixels",
    "undrawn",
    "write_edited",
]

SHARD = 512
"""So many images are explained, and written, at a time."""


def remove_pixels(
    images: Float[Tensor, "n c h w"],
    maps: Float[Tensor, "n d h w"],
    share: float,
    fill: Float[Tensor, " c"],
) -> Float[Tensor, "n c h w"]:
    """Give the most important pixels of each image one colour.

    Parameters
    ----------
    images : Tensor
        The images ``(N, C, H, W)`` in [0, 1].
    maps : Tensor
        What explains them, of any number of channels. Their pixel scores give the order; of equal
        pixels those that come first in the image go first.
    share : float
        Which share of the pixels, from 0 to 1: the nearest whole number of them, of two the even
        one.
    fill : Tensor
        What they become, a value a channel ``(C,)`` in [0, 1].

    Raises
    ------
    InputError
        If images, maps, share or fill are not as above.

    Examples
    --------
    >>> image = torch.tensor([[[[0.1, 0.2, 0.3, 0.4]]]])
    >>> maps = torch.tensor([[[[0.0, -7.0, 5.0, 5.0]]]])
    >>> remove_pixels(image, maps, 0.5, fill=torch.tensor([1.0]))
    tensor([[[[0.1000, 1.0000, 1.0000, 0.4000]]]])
    """
    check_images(images)
    check_maps(maps, images)
    channels = images.shape[1]
    if not 0 <= share <= 1:
        raise InputError("share", share, "a number from 0 to 1")
    if fill.shape != (channels,):
        raise InputError("fill", f"shape {tuple(fill.shape)}", f"shape ({channels},)")
    return fill_first(images, rank_pixels(maps), share, fill)


def check_maps(maps: Tensor, images: Tensor) -> None:
    """Refuse maps that are not one of each image, of its height and width.

    Raises
    ------
    InputError
        Names ``maps``.

    Examples
    --------
    >>> check_maps(torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 4, 4))
    """
    count, _, height, width = images.shape
    if maps.ndim != 4 or (len(maps), *maps.shape[2:]) != (count, height, width):
        expected = f"shape ({count}, C, {height}, {width})"
        raise InputError("maps", f"shape {tuple(maps.shape)}", expected)


def rank_pixels(maps: Float[Tensor, "n c h w"]) -> Integer[Tensor, "n h w"]:
    """Tell at which place in the order of importance each pixel comes, from 0 on.

    Examples
    --------
    >>> rank_pixels(torch.tensor([[[[0.0, -7.0], [5.0, 5.0]]]]))
    tensor([[[3, 0],
             [1, 2]]])
    """
    check_finite(maps, "maps")
    order = pixel_scores(maps).argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1).view(-1, *maps.shape[2:])


def rank_by_chance(images: Float[Tensor, "n c h w"], seed: int) -> Integer[Tensor, "n h w"]:
    """Rank the pixels of each image by chance, which is seeded by ``seed`` and by the image.

    Examples
    --------
    >>> rank_by_chance(torch.rand(1, 3, 2, 2), seed=0).flatten().sort().values
    tensor([0, 1, 2, 3])
    """
    _, _, height, width = images.shape
    drawn = [torch.randperm(height * width, generator=g) for g in generators(images, seed)]
    return torch.stack(drawn).view(-1, height, width)


def fill_first(
    images: Float[Tensor, "n c h w"],
    ranks: Integer[Tensor, "n h w"],
    share: float,
    fill: Float[Tensor, " c"],
) -> Float[Tensor, "n c h w"]:
    """Give the pixels of the first ranks one colour, as `remove_pixels` does.

    Examples
    --------
    >>> ranks = torch.tensor([[[0, 1, 2]]])
    >>> fill_first(torch.zeros(1, 1, 1, 3), ranks, 1 / 3, fill=torch.ones(1))
    tensor([[[[1., 0., 0.]]]])
    """
    gone = ranks < round(share * ranks[0].numel())
    return torch.where(gone[:, None], fill[:, None, None], images)


def undrawn(data: ImageData) -> ImageData:
    """Choose the images from which ``data`` draws those to train on and those held out.

    That is, those to train on, or where some are held out all of the split. From the same labels in
    the same order the same ones will be drawn, held out and repeated again.

    Examples
    --------
    >>> undrawn(ImageData("digits", limit=100, balance=20)).load("train")
    ImageDataset(digits: 100 images 1×16×16, 10 classes)
    >>> undrawn(ImageData("digits", limit=100, validation=0.1)).load("train")
    ImageDataset(digits: 1297 images 1×16×16, 10 classes)
    """
    limit = data.limit if data.validation is None else None
    return replace(data, limit=limit, validation=None, balance=None, augmentation=None)


def mean_colour(data: ImageDataset) -> Float[Tensor, " c"]:
    """Return the mean of each channel over all images, to the nearest of 256 levels.

    Examples
    --------
    >>> mean_colour(ImageData("digits").load("train")) * 255
    tensor([78.])
    """
    total = torch.zeros(data.shape[0], dtype=torch.float64)
    for part in chunks(len(data), SHARD):
        images = data.batch(range(part.start, part.stop))["images"]
        total += images.double().mean(dim=(2, 3)).sum(0)
    return (total / len(data) * 255).round().float() / 255


def write_edited(
    data: ImageDataset, file: Path, edit: Callable[[Tensor, slice], Float[Tensor, "n c h w"]]
) -> None:
    """Write a data set as Parquet with its images edited, and all else as it is.

    Parameters
    ----------
    data : ImageDataset
        The images as they are read, without augmentation, with their labels, boxes, masks and
        saliency.
    file : Path
        Where to; the name is that of the split. Images are PNG, 8 bits a channel.
    edit : callable
        Is given the images ``(N, C, H, W)`` in [0, 1] and which of the data set they are, and
        returns others of the same shape.

    Examples
    --------
    >>> import tempfile
    >>> digits = ImageData("digits", limit=5).load("test")
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_edited(digits, folder / "test.parquet", lambda images, part: 1 - images)
    >>> negative = ImageData(str(folder)).load("test")
    >>> bool((negative[4]["images"] + digits[4]["images"] == 1).all())
    True
    """
    numbers = datasets.Sequence(datasets.Value("float32"))
    optional = {
        "boxes": {"bbox": datasets.Sequence(datasets.Value("float32"), length=4)},
        "masks": {"mask": datasets.Sequence(numbers)},
        "saliency": {"saliency": datasets.Sequence(numbers)},
    }
    columns = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(data.classes))}
    for name in data.batch([0]):
        columns |= optional.get(name, {})
    schema = datasets.Features(columns).arrow_schema
    with whole(file) as unfinished, pq.ParquetWriter(unfinished, schema) as writer:
        for part in chunks(len(data), SHARD):
            batch = data.batch(range(part.start, part.stop))
            batch["images"] = edit(batch["images"], part)
            writer.write_table(pa.table(_rows(batch), schema=schema))


def _rows(batch: Batch) -> dict[str, list[Any]]:
    pixels = (batch["images"] * 255).round().to(torch.uint8)
    rows: dict[str, list[Any]] = {
        "image": [{"bytes": encode_png(p, 1).numpy().tobytes(), "path": None} for p in pixels],
        "label": batch["labels"].tolist(),
    }
    if "boxes" in batch:
        rows["bbox"] = [None if box.isnan().any() else box.tolist() for box in batch["boxes"]]
    if "masks" in batch:  # a value that rounding took above 1 would be read as a grey to 255
        rows["mask"] = _planes(batch["masks"].clamp(max=1))
    if "saliency" in batch:
        rows["saliency"] = _planes(batch["saliency"])
    return rows


def _planes(planes: Float[Tensor, "n h w"]) -> list[list[np.ndarray] | None]:
    return [None if np.isnan(plane).any() else list(plane) for plane in planes.numpy()]
