"""ImageNet's 1,000 classes: the WordNet id and the names of each logit, in the usual order."""

from __future__ import annotations

from functools import cache
from importlib import resources

__all__ = ["imagenet_classes"]


@cache
def imagenet_classes() -> dict[str, str]:
    """Return WordNet ids and the names of their classes, in the order of a model's logits.

    That is the alphabetical order of the ids, which all published models with 1,000 logits keep.
    Names are WordNet's, divided by commas; a few classes share one, no two an id.

    Examples
    --------
    >>> classes = imagenet_classes()
    >>> len(classes), classes["n01440764"], list(classes).index("n02012849")
    (1000, 'tench, Tinca tinca', 134)
    """
    text = (resources.files("holdfast.data") / "imagenet.txt").read_text(encoding="utf-8")
    rows = (line.partition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {wordnet_id: names for wordnet_id, _, names in rows}
