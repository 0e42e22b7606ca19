"""The names of a model's logits: which of them a word or a WordNet id names."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from holdfast.data.imagenet import imagenet_classes

__all__ = ["Logits", "plain", "wordnet_id_of"]

_WORDNET_ID = re.compile(r"(n\d{8})(?![0-9A-Za-z])[\s_.,:-]*")


def _places() -> Any:
    return field(default_factory=lambda: defaultdict(set))


@dataclass(frozen=True)
class Logits:
    """The names of a model's logits, to be looked up; `Logits.of` makes one.

    Examples
    --------
    >>> Logits.of(("tench, Tinca tinca", "crane", "Crane")).find(["Tinca_tinca"], others=())
    {0}
    """

    names: tuple[str, ...]
    ids: dict[str, set[int]] = _places()  # WordNet's
    exact: dict[str, set[int]] = _places()
    first: dict[str, set[int]] = _places()  # the whole name, or the first of a list, plainly
    parts: dict[str, set[int]] = _places()  # any name of a list

    @classmethod
    def of(cls, names: tuple[str, ...]) -> Logits:
        """Take in the names, and the WordNet ids that they are or that ImageNet's order gives."""
        known = imagenet_classes()
        ids = [wordnet_id_of(name) for name in names]
        if not any(ids) and _are_imagenet(names):
            ids = list(known)
        logits = cls(names)
        for place, (name, wordnet_id) in enumerate(zip(names, ids, strict=True)):
            logits.exact[name].add(place)
            spellings = [_WORDNET_ID.sub("", name, count=1)]
            if wordnet_id is not None:
                logits.ids[wordnet_id].add(place)
                spellings.append(known.get(wordnet_id, ""))
            for spelling in filter(None, spellings):
                parts = spelling.split(",")
                for word in (spelling, parts[0]):
                    logits.first[plain(word)].add(place)
                for word in parts:
                    logits.parts[plain(word)].add(place)
        return logits

    def find(self, words: Iterable[str], others: Collection[str]) -> set[int]:
        """Return the one logit that a class of these names fits; several if none fits alone.

        ``others`` are the names of all classes: where two logits differ in no more than case and
        punctuation, a class is one of them only if another class is the other.
        """
        several: set[int] = set()
        for word in sorted(words, key=lambda word: wordnet_id_of(word) is None):
            wordnet_id = wordnet_id_of(word)
            if wordnet_id is not None and self.ids:  # no name may overrule it
                return self.ids.get(wordnet_id, set())
            rest = word if wordnet_id is None else _WORDNET_ID.sub("", word, count=1)
            found = self._named(imagenet_classes().get(wordnet_id or "", rest or word), others)
            if len(found) == 1:
                return found
            several = several or found
        return several

    def _named(self, word: str, others: Collection[str]) -> set[int]:
        exact = self.exact.get(word, set())
        parts = [plain(part) for part in word.split(",")]
        alike = self.first.get(plain(word), set())
        if len(exact) == 1 and all(self.names[place] in others for place in alike - exact):
            return exact
        for found in (alike, self.first.get(parts[0], set())):
            if found:
                return found
        for table in (self.first, self.parts):
            found = set().union(*(table.get(part, set()) for part in parts))
            if found:
                return found
        return set()


@cache
def _are_imagenet(names: tuple[str, ...]) -> bool:
    """Tell whether names are ImageNet's in the usual order: most fit, and none fits elsewhere."""
    known = list(imagenet_classes().values())
    if len(names) != len(known):
        return False
    places: dict[str, set[int]] = defaultdict(set)
    for place, spelling in enumerate(known):
        for word in (spelling, *spelling.split(",")):
            places[plain(word)].add(place)
    fits = [
        set().union(*(places.get(plain(word), set()) for word in (name, name.split(",")[0])))
        for name in names
    ]
    astray = any(found and place not in found for place, found in enumerate(fits))
    return not astray and sum(map(bool, fits)) > len(names) / 2


def wordnet_id_of(name: str) -> str | None:
    """Return the WordNet id that a name is or begins with, or none.

    Examples
    --------
    >>> wordnet_id_of("n01440764_tench"), wordnet_id_of("tench")
    ('n01440764', None)
    """
    found = _WORDNET_ID.match(name)
    return None if found is None else found[1]


def plain(word: str) -> str:
    """Spell a name by its letters and digits alone, without case and accents.

    Examples
    --------
    >>> plain("Café au_lait")
    'cafeaulait'
    """
    letters = unicodedata.normalize("NFKD", word).casefold()
    return "".join(filter(str.isalnum, letters)) or word.strip()
