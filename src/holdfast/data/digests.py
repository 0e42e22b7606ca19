"""What tells one data set from another: digests of its images, labels and whatever else it has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

from holdfast.contracts import chunks
from holdfast.data.dataset import ImageDataset

__all__ = ["digests_of"]


def digests_of(data: ImageDataset, at_most: int | None = None) -> dict[str, str]:
    """Hash what a model is shown, in its order: images, labels, and what else the data set has.

    Parameters
    ----------
    data : ImageDataset
        The images; what an augmentation makes of them is not looked at.
    at_most : int, optional
        Look at so many images alone, spread evenly over the data set, and at the labels and the
        number of all. By default at every image, which takes a while where they are many.

    Returns
    -------
    dict of str to str
        SHA-256, in hexadecimal, by column: ``images``, ``labels``, ``boxes`` and so on.

    Examples
    --------
    >>> from holdfast.data import ImageData
    >>> data = ImageData("digits", limit=3).load("test")
    >>> sorted(digests_of(data))
    ['images', 'labels']
    """
    every = torch.arange(len(data))
    if at_most is not None and at_most < len(data):
        every = torch.linspace(0, len(data) - 1, at_most).round().long()
    hashes: dict[str, Any] = {}
    for part in chunks(len(every), 256) if len(every) else ():
        batch: Mapping[str, Any] = data.batch(every[part])
        for name, values in batch.items():
            hashes.setdefault(name, hashlib.sha256()).update(values.contiguous().numpy().data)
    labels = hashes.setdefault("labels", hashlib.sha256())
    if at_most is not None:
        labels.update(data.labels.contiguous().numpy().data)
    labels.update(json.dumps(list(data.classes)).encode())
    return {name: digest.hexdigest() for name, digest in hashes.items()}
