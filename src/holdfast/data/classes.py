"""Which class of a data set is which logit of a model: by name, by WordNet id, or as a file says.

Never by the order in which names happen to be sorted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from holdfast.contracts import HoldfastError, InputError
from holdfast.data.imagenet import imagenet_classes
from holdfast.data.logits import Logits, plain, wordnet_id_of
from holdfast.data.mapping import read_mapping

__all__ = ["logit_names", "match_classes"]

_PLACEHOLDER = re.compile(r"label[_ ]?(\d+)", re.IGNORECASE)
"""What transformers calls logits that nobody named: LABEL_0, LABEL_1 …"""
_HINT = "--data.mapping FILE can say which class is which logit"


def match_classes(
    classes: Sequence[str],
    model_classes: Sequence[str] | int,
    mapping: Mapping[str, int | str] | Sequence[str] | str | Path | None = None,
    *,
    synonyms: Sequence[Sequence[str]] = (),
    present: Collection[int] | None = None,
    ordered: bool = True,
) -> tuple[int, ...]:
    """Find the logit of each class of a data set.

    Parameters
    ----------
    classes : sequence of str
        The names of the data's classes. Numbers alone are labels that nobody named.
    model_classes : sequence of str or int
        The model's names of its classes, in the order of its logits; or how many logits it has,
        where it names none.
    mapping : optional
        Which class is which logit, where that is not to be found out:

        - a mapping from classes to places among the logits or to the model's names;
        - a sequence of the names of the logits, in their order, in place of ``model_classes``;
        - a file with either: JSON, CSV (``class,index``) or text (a name a line);
        - "index": labels are places among the logits;
        - "imagenet": logits are ImageNet's 1,000 classes in the usual order.

    synonyms : sequence of sequence of str
        What else the data calls each class; WordNet ids among them count before names.
    present : collection of int, optional
        Which classes have images; the others need not match. By default all have.
    ordered : bool
        Whether the data itself says which class is which number, rather than the alphabet.

    Returns
    -------
    tuple of int
        The place of each class among the logits; −1 for one that has no images and no logit.

    Raises
    ------
    HoldfastError
        If a class fits no logit, or several; or two classes fit the same.
    InputError
        If ``mapping`` is no such file, or does not fit the classes or the logits.

    Notes
    -----
    Names are compared without regard to case, spaces and punctuation, and lists of names with
    commas, such as "tench, Tinca tinca", name by name. A WordNet id, such as folders are called by,
    finds the logit of that id where the model's names are ids or are recognized as ImageNet's, and
    else that of one of its names. A name that several logits share is refused, as that of the two
    cranes of ImageNet. Numbers are matched by value: with names that are numbers, or where they are
    exactly the places of all logits, from 0 to K − 1.

    Examples
    --------
    >>> match_classes(("n02012849", "Great White-Shark"), tuple(imagenet_classes().values()))
    (134, 2)
    >>> match_classes(("cat", "dog"), ("dog", "cat"))
    (1, 0)
    >>> match_classes(("cat", "dog"), ("dog", "bird"))
    Traceback (most recent call last):
        ...
    holdfast.contracts.HoldfastError: no logit of the model fits class 'cat' of the data; \
the model has 'dog', 'bird'; --data.mapping FILE can say which class is which logit
    """
    names = logit_names(model_classes)
    needed = sorted(set(range(len(classes))) if present is None else set(present))
    if mapping is None and tuple(classes) == names and not _nameless(model_classes):
        return tuple(range(len(names)))
    rows = [(name, *also) for name, also in zip_longest(classes, synonyms, fillvalue=())]
    if mapping == "index":
        return _by_place(classes, len(names), needed)
    if mapping == "imagenet":
        if len(names) != len(imagenet_classes()):
            expected = f"another than 'imagenet' for a model of {len(names)} logits"
            raise InputError("mapping", "'imagenet'", expected)
        return _by_name(rows, Logits.of(tuple(imagenet_classes())), needed)
    if mapping is not None:
        said = read_mapping(mapping) if isinstance(mapping, str | Path) else mapping
        order = _order(said, classes, len(names))
        if isinstance(said, Mapping) and order is None:
            return _as_said(classes, said, Logits.of(names), needed)
        assert order is not None
        return _by_name(rows, Logits.of(order), needed)
    logits = Logits.of(names)
    if all(map(str.isdecimal, classes)):
        named = [tuple(also) or (name,) for name, *also in rows]
        known = [named[number] for number in needed if len(rows[number]) > 1]
        words = not (_nameless(model_classes) or all(map(str.isdecimal, names)))
        if any(logits.find(row, ()) or (words and any(map(wordnet_id_of, row))) for row in known):
            return _by_name(named, logits, needed)
        if len(names) == len(imagenet_classes()) and _are_indices(rows, needed):
            return tuple(int(name) if int(name) < len(names) else -1 for name in classes)
        return _by_number(classes, model_classes, needed)
    if _nameless(model_classes):
        return _unnamed(classes, len(names), ordered)
    return _by_name(rows, logits, needed)


def logit_names(model_classes: Sequence[str] | int) -> tuple[str, ...]:
    """Return the name of each logit: "0", "1" and so on where the model names none.

    Raises
    ------
    InputError
        If there are fewer than two, or a name is no text.

    Examples
    --------
    >>> logit_names(3), logit_names(["cat", "dog"])
    (('0', '1', '2'), ('cat', 'dog'))
    """
    if isinstance(model_classes, int):
        names: tuple[str, ...] = tuple(map(str, range(model_classes)))
    else:
        names = tuple(model_classes)
    texts = not isinstance(model_classes, str) and all(isinstance(name, str) for name in names)
    if len(names) < 2 or not texts:
        expected = "names of at least two logits, or how many there are"
        raise InputError("model_classes", repr(model_classes), expected)
    return names


def _by_name(rows: Sequence[Sequence[str]], logits: Logits, needed: list[int]) -> tuple[int, ...]:
    everything = {name for row in rows for name in row}
    matched, taken = [-1] * len(rows), dict[int, int]()
    for number in range(len(rows)):
        found = logits.find(rows[number], everything)
        name = _shown(rows[number])
        if len(found) == 1:
            place = matched[number] = found.pop()
            if number in needed and taken.setdefault(place, number) != number:
                both = f"{_shown(rows[taken[place]])} and {name}"
                raise HoldfastError(
                    f"classes {both} of the data both fit logit {place} of the model, "
                    f"{logits.names[place]!r}; {_HINT}"
                )
        elif number in needed and found:
            fits = ", ".join(f"{place} ({logits.names[place]!r})" for place in sorted(found)[:3])
            raise HoldfastError(
                f"class {name} of the data fits several logits of the model, {fits}; name it by "
                f"its WordNet id, or {_HINT}"
            )
    missing = [number for number in needed if matched[number] < 0]
    if missing:
        raise HoldfastError(
            f"no logit of the model fits class {_shown(rows[missing[0]])} of the data"
            f"{_and_more(len(missing))}; the model has {_some(logits.names)}; {_HINT}"
        )
    return tuple(matched)


def _by_number(
    classes: Sequence[str], model_classes: Sequence[str] | int, needed: list[int]
) -> tuple[int, ...]:
    """Match labels that nobody named, by their value."""
    names = logit_names(model_classes)
    values = [int(name) for name in classes]
    if not _nameless(model_classes) and all(map(str.isdecimal, names)):
        places = {int(name): place for place, name in enumerate(names)}
        missing = [values[number] for number in needed if values[number] not in places]
        if missing or len(places) < len(names):
            raise HoldfastError(
                f"no logit of the model fits label {missing[0] if missing else values[0]} of the "
                f"data; the model has {_some(names)}; {_HINT}"
            )
        return tuple(places.get(value, -1) for value in values)
    if sorted(values) != list(range(len(names))):
        raise HoldfastError(
            f"the data has labels from {min(values)} to {max(values)} and no names for them, and "
            f"the model {len(names)} logits; --data.mapping index says that labels are the places "
            f"of logits, from 0 on, and {_HINT}"
        )
    return tuple(values)


def _by_place(classes: Sequence[str], count: int, needed: list[int]) -> tuple[int, ...]:
    """Take the labels as they are."""
    numbers = all(map(str.isdecimal, classes))
    places = [int(name) if numbers else place for place, name in enumerate(classes)]
    for number in needed:
        if places[number] >= count:
            expected = f"a file, as label {places[number]} is none of the model's {count} logits"
            raise InputError("mapping", "'index'", expected)
    return tuple(place if place < count else -1 for place in places)


def _unnamed(classes: Sequence[str], count: int, ordered: bool) -> tuple[int, ...]:
    """Match names with a model that has none: as the data numbers them, if it does."""
    if len(classes) != count or not ordered:
        by = "" if ordered else ", in alphabetical order"
        raise HoldfastError(
            f"the model names none of its {count} logits, and the data has {len(classes)} classes"
            f"{by}: {_some(classes)}; --data.mapping index says that these are the first logits in "
            f"their order, and {_HINT}"
        )
    return tuple(range(count))


def _order(
    said: Mapping[str, int | str] | Sequence[str], classes: Sequence[str], count: int
) -> tuple[str, ...] | None:
    """Return the names of the logits, if that is what is said rather than where classes are."""
    if isinstance(said, Mapping):
        numbered = {str(key): value for key, value in said.items()}
        named = all(isinstance(name, str) and not name.isdecimal() for name in numbered.values())
        if not (named and all(map(str.isdecimal, numbered))) or all(map(str.isdecimal, classes)):
            return None
        by_place = {int(key): str(name) for key, name in numbered.items()}
        if sorted(by_place) != list(range(count)):
            expected = f"a name for each of the model's {count} logits, from 0 to {count - 1}"
            raise InputError("mapping", f"{len(by_place)} names", expected)
        return tuple(by_place[place] for place in range(count))
    names = tuple(said)
    if len(names) != count:
        expected = f"a name for each of the model's {count} logits, in their order"
        raise InputError("mapping", f"{len(names)} names", expected)
    return names


def _as_said(
    classes: Sequence[str],
    said: Mapping[str, int | str],
    logits: Logits,
    needed: list[int],
) -> tuple[int, ...]:
    """Look classes up in what the user said; several may be the same logit."""
    plainly: dict[str, set[str]] = defaultdict(set)
    exactly = {str(name): target for name, target in said.items()}
    for name in exactly:
        plainly[plain(name)].add(name)
    matched = [-1] * len(classes)
    for number in needed:
        keys = {classes[number]} & set(exactly) or plainly.get(plain(classes[number]), set())
        if len(keys) != 1:
            came = f"{'several' if keys else 'none'} for class {classes[number]!r}"
            raise InputError(
                "mapping", came, "one logit for each class of the data that has images"
            )
        target = exactly[next(iter(keys))]
        if isinstance(target, str) and not target.strip().isdecimal():
            found = logits.find((target,), ())
        else:
            found = {int(target)} & set(range(len(logits.names)))
        if len(found) != 1:
            expected = f"a place from 0 to {len(logits.names) - 1} or the name of one logit"
            raise InputError("mapping", f"{target!r} for class {classes[number]!r}", expected)
        matched[number] = found.pop()
    return tuple(matched)


def _nameless(model_classes: Sequence[str] | int) -> bool:
    """Tell a model that names none of its logits, or only by placeholders."""
    if isinstance(model_classes, int):
        return True
    numbers = [_PLACEHOLDER.fullmatch(name) for name in model_classes]
    return all(
        number is not None and int(number[1]) == place for place, number in enumerate(numbers)
    )


def _are_indices(rows: Sequence[Sequence[str]], needed: list[int]) -> bool:
    """Tell whether the WordNet ids beside labels say that these are ImageNet's own numbers."""
    places = {wordnet_id: place for place, wordnet_id in enumerate(imagenet_classes())}
    return all(
        any(places.get(wordnet_id_of(word) or "") == int(name) for word in also)
        for name, *also in (rows[number] for number in needed)
    )


def _shown(row: Sequence[str]) -> str:
    also = f" ({', '.join(row[1:])})" if len(row) > 1 else ""
    return f"{row[0]!r}{also}"


def _some(names: Sequence[str], count: int = 3) -> str:
    shown = ", ".join(map(repr, names[:count]))
    return shown if len(names) <= count else f"{shown} …"


def _and_more(count: int) -> str:
    return "" if count == 1 else f" (nor {count - 1} more)"
