"""The data set that is always there: scikit-learn's handwritten digits."""

from __future__ import annotations

from functools import cache

import datasets
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

__all__ = ["digits"]


def digits() -> dict[str, datasets.Dataset]:
    """Return 1,797 handwritten digits, 8×8 pixels of 17 greys: 1,297 to train on, 500 to test.

    The classes are spread evenly over both splits, which are the same at every call. The pictures
    are the test part of the *Optical Recognition of Handwritten Digits* of the UCI repository.

    Examples
    --------
    >>> tables = digits()
    >>> len(tables["train"]), len(tables["test"])
    (1297, 500)
    """
    return dict(_encoded())


@cache
def _encoded() -> dict[str, datasets.Dataset]:
    """Make both splits once: to encode the pictures takes longer than many a training on them."""
    pixels, labels = load_digits(return_X_y=True)
    greys = np.round(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    rows = train_test_split(np.arange(len(labels)), test_size=500, stratify=labels, random_state=0)
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=[str(digit) for digit in range(10)])
    )
    return {
        split: datasets.Dataset.from_dict(
            {"image": list(greys[chosen]), "label": labels[chosen]}, features=features
        )
        for split, chosen in zip(("train", "test"), rows, strict=True)
    }
