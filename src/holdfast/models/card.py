"""What a published model says of itself, whoever has published it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.contracts import InputError
from holdfast.preprocessing import Preprocessing

__all__ = ["Card", "close_to", "refuse_options"]


@dataclass(frozen=True)
class Card:
    """What a published model's own configuration says.

    Attributes
    ----------
    name : str
        Its name, as `Architecture.name` has it, with which it is rebuilt.
    weights : str, optional
        Its trained weights, as `Architecture.weights` has them.
    classes : tuple of str
        The names of its classes in the order of its logits; empty where it does not say.
    count : int, optional
        How many classes it has, named or not.
    mean, std : tuple of float, optional
        Its normalization of images in [0, 1].
    preprocessing : Preprocessing, optional
        How it wants its images; None where it does not say.
    options : dict
        What belongs to `Architecture.options`.
    config : dict, optional
        The whole configuration of the network, where the network is built from one.
    silent : bool
        Whether there should be a normalization, and the file that says which is missing.
    """

    name: str
    weights: str | None = None
    classes: tuple[str, ...] = ()
    count: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    preprocessing: Preprocessing | None = None
    options: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] | None = None
    silent: bool = False


def close_to(name: str, known: Collection[str]) -> str:
    """Say which known names are spelled alike, for the end of an error.

    Examples
    --------
    >>> close_to("resnet5", ["resnet50", "vit"])
    ' (close: resnet50)'
    """
    close = difflib.get_close_matches(name, list(known))
    return f" (close: {', '.join(close)})" if close else ""


def refuse_options(options: Mapping[str, Any], kept: Collection[str]) -> None:
    """Refuse options by which a network would fetch weights: `Architecture.weights` names those.

    Raises
    ------
    InputError
        If one of ``kept`` is among the options.
    """
    wrong = sorted(set(options) & set(kept))
    if wrong:
        expected = "no weights there; Architecture.weights names them"
        raise InputError("Architecture.options", ", ".join(wrong), expected)
