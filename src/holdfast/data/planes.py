"""What a data set says of every pixel: masks of the objects, or saliency.

Both kinds, in memory and not, offer the same ``read(indices)``, as pictures do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import datasets
import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from holdfast.contracts import HoldfastError
from holdfast.data.columns import encoded_images, is_plane_of_numbers
from holdfast.data.framing import Framing
from holdfast.data.images import open_image

__all__ = ["DecodedPlanes", "EncodedPlanes"]


@dataclass(frozen=True, eq=False)
class DecodedPlanes:
    """Planes that stand in memory.

    Parameters
    ----------
    values : Tensor
        All planes ``(N, H, W)``.
    sizes : Tensor
        Height and width that each had before it was resized ``(N, 2)``; 0 where there is none.

    Examples
    --------
    >>> planes = DecodedPlanes(torch.zeros(5, 8, 8), sizes=torch.full((5, 2), 8))
    >>> planes.read([3, 4])[0].shape
    torch.Size([2, 8, 8])
    """

    values: Float[Tensor, "n h w"]
    sizes: Integer[Tensor, "n 2"]

    def __len__(self) -> int:
        return len(self.values)

    def read(self, indices: Sequence[int]) -> tuple[Float[Tensor, "n h w"], Integer[Tensor, "n 2"]]:
        """Return these planes, and the sizes they had before they were resized."""
        chosen = torch.as_tensor(indices, dtype=torch.long)
        return self.values[chosen], self.sizes[chosen]


@dataclass(frozen=True, eq=False)
class EncodedPlanes:
    """Planes that are made of a table's images or lists whenever they are read.

    Parameters
    ----------
    table : datasets.Dataset
        What holds them.
    column : str
        In which of its columns: images, or lists of lists of numbers.
    rows : list of int
        The rows of the table that count, in the order in which they are numbered here.
    framing : Framing
        How each is resized and cropped, as its image is, but always bilinear and antialiased.
    kind : {"mask", "saliency"}
        Masks are brought to [0, 1]: one whose largest value is 1 is taken as it is, and any other
        as greys to 255. Saliency is taken as it is, and from images as greys from 0 to 1.

    Examples
    --------
    >>> table = datasets.Dataset.from_dict({"mask": [[[0, 255], [0, 0]], [[0, 1], [1, 1]]]})
    >>> EncodedPlanes(table, "mask", [0, 1], Framing((2, 2)), "mask").read([0])
    (tensor([[[0., 1.],
             [0., 0.]]]), tensor([[2, 2]]))
    """

    table: Any
    column: str
    rows: list[int]
    framing: Framing
    kind: Literal["mask", "saliency"]

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, indices: Sequence[int]) -> tuple[Float[Tensor, "n h w"], Integer[Tensor, "n 2"]]:
        """Return these planes, and the sizes they had before they were resized.

        A row without a plane has NaN all over, and size 0.

        Raises
        ------
        HoldfastError
            If an image cannot be read, or a list is no rectangle of finite numbers; names the row.
        """
        values = torch.full((len(indices), *self.framing.size), torch.nan)
        sizes = torch.zeros(len(indices), 2, dtype=torch.long)
        rows = [self.rows[index] for index in indices]
        column = self._column()
        for place, row in enumerate(rows):
            plane = self._plane(column[row][self.column], row)
            if plane is not None:
                sizes[place] = torch.tensor(plane.shape)
                values[place] = self.framing.plane(torch.from_numpy(plane))
        return values, sizes

    def decode_all(self) -> DecodedPlanes:
        """Read every plane, once."""
        return DecodedPlanes(*self.read(range(len(self.rows))))

    def _column(self) -> datasets.Dataset:
        if is_plane_of_numbers(self.table.data.column(self.column).type):
            return self.table.select_columns([self.column])
        return encoded_images(self.table, self.column)

    def _plane(self, value: Any, row: int) -> np.ndarray | None:
        if value is None or (isinstance(value, dict) and not (value["bytes"] or value["path"])):
            return None
        if isinstance(value, dict):
            image = open_image(value, row, self.kind)
            plane = np.asarray(image if image.mode == "L" else image.convert("L"), np.float32)
            largest = 1 if self.kind == "mask" and plane.max() <= 1 else 255
            return plane / np.float32(largest)
        try:
            plane = np.asarray(value, dtype=np.float32)
        except (TypeError, ValueError):
            plane = np.empty(0, dtype=np.float32)
        if plane.ndim != 2 or plane.size == 0 or not np.isfinite(plane).all():
            raise HoldfastError(f"{self.kind} {row} is no rectangle of finite numbers")
        return plane / np.float32(255) if self.kind == "mask" and plane.max() > 1 else plane
