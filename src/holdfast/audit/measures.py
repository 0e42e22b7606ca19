"""Measures that only some images have: NaN stands for the others and leaves no record."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

__all__ = ["spread"]


def spread(
    measures: Mapping[str, Tensor], chosen: Bool[Tensor, " n"]
) -> dict[str, Float64[Tensor, " n"]]:
    """Put measures of the chosen images where those stand among all, with NaN for the others.

    Examples
    --------
    >>> spread({"loc": torch.tensor([0.5])}, torch.tensor([False, True]))
    {'loc': tensor([   nan, 0.5000], dtype=torch.float64)}
    """
    whole = {}
    for name, values in measures.items():
        whole[name] = torch.full(chosen.shape, torch.nan, dtype=torch.float64, device=chosen.device)
        whole[name][chosen] = values.double()
    return whole
