"""YAML as plain data: read by YAML 1.2's core schema, within bounds, and nothing else.

Whoever sent a file may have written anything into it. What is read here is mappings, lists, text,
numbers, true, false and null; tags, merge keys and several documents are refused. ``no`` and
``2024-01-01`` are text, and ``1e-3`` is a number.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from holdfast.errors import HoldfastError

__all__ = ["Unread", "dump", "parse", "read", "read_mapping"]

_BYTES = 2_000_000
_DEPTH = 50
_VALUES = 50_000
"""Of a file with its aliases written out: more is no file of settings, and may never end."""

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}


class Unread(str):
    """Text of a setting as somebody typed it: YAML, unless what it is for is text itself."""


def read(path: str | Path, name: str | None = None) -> Any:
    r"""Read a file of YAML.

    Parameters
    ----------
    path : str or Path
        The file.
    name : str, optional
        What errors call it; its path by default.

    Returns
    -------
    object
        What :func:`parse` gives.

    Raises
    ------
    HoldfastError
        If it is no readable file, too large, or not as :func:`parse` wants it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "settings.yaml"
    ...     _ = file.write_text("eps: 1e-3\nshuffle: no")
    ...     read(file)
    {'eps': 0.001, 'shuffle': 'no'}
    """
    name = str(path) if name is None else name
    path = Path(path)
    try:
        if not path.is_file():  # a pipe, say, would be waited for
            raise HoldfastError(f"{name}: expected a file of YAML, there is none")
        size = path.stat().st_size
        if size > _BYTES:
            raise HoldfastError(f"{name}: {size:,} bytes are more than settings have ({_BYTES:,})")
        text = path.read_bytes()[: _BYTES + 1].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise _fault(name, line, "it is not in UTF-8") from error
    except (OSError, ValueError) as error:  # a path with NUL
        raise HoldfastError(f"{name}: it cannot be read ({error})") from error
    return parse(text, name)


def read_mapping(path: str | Path, name: str | None = None) -> dict[str, Any]:
    """Read a file of settings: what :func:`read` gives is a mapping, and its keys are text.

    Raises
    ------
    HoldfastError
        As :func:`read` does; or if it is no such mapping.
    """
    settings = read(path, name)
    name = str(path) if name is None else name
    if not isinstance(settings, dict):
        came = "nothing" if settings is None else type(settings).__name__
        raise HoldfastError(f"{name}: expected a mapping of settings, got {came}")
    odd = [key for key in settings if not isinstance(key, str)]
    if odd:
        raise HoldfastError(f"{name}: expected names of settings, got {_shown(odd[0])}")
    return settings


def parse(text: str, name: str) -> Any:
    r"""Read YAML as plain data.

    Parameters
    ----------
    text : str
        One document.
    name : str
        Where it comes from, for errors.

    Returns
    -------
    dict, list, str, int, float, bool or None
        Keys of mappings are text or whole numbers.

    Raises
    ------
    HoldfastError
        If it is no YAML, a key comes twice or is something else, it has tags, merge keys or several
        documents, or is nested too deep or too long once its aliases are written out. Names the
        line.

    Examples
    --------
    >>> parse("{schedule: {50: 0.01}, name: 2024-01-01}", "recipe")
    {'schedule': {50: 0.01}, 'name': '2024-01-01'}
    >>> parse("eps: 1\neps: 2", "recipe")
    Traceback (most recent call last):
        ...
    holdfast.contracts.HoldfastError: recipe, line 2: 'eps' is there twice
    """
    if len(text) > _BYTES:
        raise HoldfastError(f"{name}: {len(text):,} characters, more than settings have")
    try:
        return _Reader(text, name).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ", ".join(filter(None, (error.context, error.problem)))
        raise _fault(name, mark.line + 1 if mark else 1, f"no valid YAML: {reason}") from error
    except (yaml.YAMLError, UnicodeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HoldfastError(f"{name}: no valid YAML: {reason}") from error


def dump(value: Any) -> str:
    """Write plain data as YAML that :func:`read` gives back, and YAML 1.1 reads alike.

    Examples
    --------
    >>> print(dump({"eps": 1e-05, "name": "no", "path": "1e3"}), end="")
    eps: 1.0e-05
    name: 'no'
    path: '1e3'
    """
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Reader:
    """One document, value by value; counts how deep and how long it is."""

    def __init__(self, text: str, name: str) -> None:
        # The faster of PyYAML's parsers reads events alone: no tag makes an object of anything.
        loader = getattr(yaml, "CLoader", yaml.Loader)
        self.events: Iterator[Any] = yaml.parse(str(text), Loader=loader)
        self.name = name
        self.line = 1
        self.depth = 0
        self.count = 0
        self.named: dict[str, tuple[Any, int, int]] = {}
        """What anchors stand for, how many values that is, and how deep."""

    def document(self) -> Any:
        next(self.events)
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return None
        value, _ = self._value(self._next())
        next(self.events)
        if not isinstance(self._next(), yaml.StreamEndEvent):
            raise self._fault("a second document begins")
        return value

    def _next(self) -> Any:
        event = next(self.events)
        self.line = event.start_mark.line + 1
        return event

    def _value(self, event: Any) -> tuple[Any, int]:
        """Read the value that begins with an event; return how deep it is, too."""
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor))
        if event.tag is not None:
            raise self._fault(f"tags such as {_shown(event.tag)} are not read")
        before, self.depth = self.count, self.depth + 1
        self._bound(1, self.depth)
        value, height = self._content(event)
        self.depth -= 1
        if event.anchor is not None:
            self.named[event.anchor] = value, self.count - before, height
        return value, height

    def _content(self, event: Any) -> tuple[Any, int]:
        if isinstance(event, yaml.ScalarEvent):
            if "\0" in event.value:
                raise self._fault("text holds the character NUL")
            return (self._scalar(event.value) if event.implicit[0] else event.value), 1
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping()
        items, height = [], 0
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            item, own = self._value(event)
            items.append(item)
            height = max(height, own)
        return items, height + 1

    def _mapping(self) -> tuple[dict[str | int, Any], int]:
        mapping: dict[str | int, Any] = {}
        height = 0
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key, _ = self._value(event)
            if key == "<<" and isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
                raise self._fault("merge keys (<<) are not read")
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise self._fault(f"{_shown(key)} is a key, and keys are text or whole numbers")
            if key in mapping:
                raise self._fault(f"{_shown(key)} is there twice")
            mapping[key], own = self._value(self._next())
            height = max(height, own)
        return mapping, height + 1

    def _alias(self, anchor: str) -> tuple[Any, int]:
        if anchor not in self.named:
            raise self._fault(f"alias {_shown(anchor)} stands for nothing that came before")
        value, count, height = self.named[anchor]
        self._bound(count, self.depth + height)
        # Settings are changed in place, each for itself.
        return copy.deepcopy(value), height

    def _bound(self, more: int, depth: int) -> None:
        self.count += more
        if self.count > _VALUES:
            raise self._fault(f"more than {_VALUES:,} values, aliases written out")
        if depth > _DEPTH:
            raise self._fault(f"nested deeper than {_DEPTH} levels")

    def _scalar(self, text: str) -> Any:
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            number = int(text[:100], 0 if text[:2] in ("0o", "0x") else 10)
            if not -(2**63) <= number < 2**64:
                raise self._fault(f"{_shown(text)} has more than 64 bits; in quotes it is text")
            return number
        if _FLOAT.fullmatch(text):
            return float(text)
        if _SPECIAL.fullmatch(text):
            return float(text.replace(".", "", 1))
        return text

    def _fault(self, reason: str) -> HoldfastError:
        return _fault(self.name, self.line, reason)


def _fault(name: str, line: int, reason: str) -> HoldfastError:
    return HoldfastError(f"{name}, line {line}: {reason}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


class _Dumper(yaml.SafeDumper):
    """Quotes whatever YAML 1.1 or 1.2 would take for something else than text."""

    def ignore_aliases(self, data: object) -> bool:
        """Write out what occurs twice, each time."""
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(rf"^({_INTEGER.pattern})$"), None)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"^({_FLOAT.pattern})$"), None)
_Dumper.add_representer(
    tuple, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", list(items))
)
