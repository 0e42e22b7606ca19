"""What a saved model says of itself, read by a schema: types and bounds first, then meaning.

Whoever sent the file may have written anything there. Nothing is built here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from holdfast.contracts import InputError
from holdfast.models import Architecture
from holdfast.preprocessing import Preprocessing

__all__ = ["FORMAT", "read_json", "read_metadata"]

FORMAT = 1
"""Version of the metadata's layout; raised when older versions of Holdfast could not read it."""

_CHARACTERS = 20_000_000
_VALUES = 200_000
_DEPTH = 20
_NUMBER = 10_000_000
"""Beyond all sizes, depths and counts that networks have as their settings."""

_FETCHING = (
    *("weights", "pretrained", "weights_backbone", "pretrained_backbone", "checkpoint_path"),
    *("pretrained_cfg", "pretrained_cfg_overlay", "use_pretrained_backbone", "cache_dir"),
    *("trust_remote_code", "auto_map", "use_kernels", "quantization_config"),
)
_ATTENTION = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
_EXPECTED = "a file written by holdfast.training.save"

_Check = Callable[[Any], bool]


def read_metadata(
    metadata: Mapping[str, str], file: Path
) -> tuple[Architecture, tuple[str, ...], Preprocessing | None]:
    """Read architecture, class names and preprocessing from the metadata of a model file.

    Raises
    ------
    InputError
        If something is missing, of another type or beyond its bounds, or settings would start a
        download; names what.

    Examples
    --------
    >>> metadata = {"holdfast_format": "1", "classes": '["cat", "dog"]',
    ...             "architecture": '{"name": "mnist_cnn", "classes": 2, "size": "large"}'}
    >>> read_metadata(metadata, Path("model.safetensors"))
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: path: expected a file written by holdfast.training.save, got \
model.safetensors with damaged metadata (architecture.size is 'large')
    """
    if "holdfast_format" not in metadata:
        raise InputError("path", f"{file} without Holdfast's metadata", _EXPECTED)
    written = metadata["holdfast_format"]
    if not (written.isascii() and written.isdecimal() and len(written) < 10 and int(written) > 0):
        _damaged(file, f"holdfast_format is {_shown(written)}")
    if int(written) > FORMAT:
        newer = f"format {written} in {file}; please update Holdfast"
        raise InputError("path", newer, f"format {FORMAT} or older")
    fields = _fields(metadata, "architecture", _ARCHITECTURE, file)
    architecture = Architecture(**fields)
    classes = _json(metadata, "classes", file)
    if not _is_list_of(_is_text)(classes) or len(classes) != len(set(classes)):
        _damaged(file, "classes are no list of different names")
    if architecture.classes is not None and len(classes) != architecture.classes:
        _damaged(file, f"{len(classes)} names for {architecture.classes} classes")
    if "preprocessing" not in metadata:
        return architecture, tuple(classes), _of_older(architecture)
    preprocessing = Preprocessing(**_fields(metadata, "preprocessing", _PREPROCESSING, file))
    return architecture, tuple(classes), preprocessing


def read_json(text: str) -> Any:
    """Read JSON of finite numbers that is neither long nor deep.

    Raises
    ------
    ValueError
        Says what is wrong with it.

    Examples
    --------
    >>> read_json('{"dropout": 0.3}')
    {'dropout': 0.3}
    """
    if len(text) > _CHARACTERS:
        raise ValueError(f"{len(text):,} characters")
    try:
        value = json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if _count(value, 0) > _VALUES:
        raise ValueError(f"more than {_VALUES:,} values")
    return value


def _fields(
    metadata: Mapping[str, str], key: str, schema: Mapping[str, _Check], file: Path
) -> dict[str, Any]:
    fields = _json(metadata, key, file)
    if not isinstance(fields, dict):
        _damaged(file, f"{key} is {_shown(fields)}")
    for name, value in fields.items():
        if name not in schema:
            _damaged(file, f"{key} has {_shown(name)}")
        if not schema[name](value):
            _damaged(file, f"{key}.{name} is {_shown(value)}")
    first = next(iter(schema))  # the only one without a default
    if first not in fields:
        _damaged(file, f"{key} has no {first}")
    plain = ("options", "config")  # what stands in a list there was one
    return {
        name: tuple(value) if isinstance(value, list) and name not in plain else value
        for name, value in fields.items()
    }


def _json(metadata: Mapping[str, str], key: str, file: Path) -> Any:
    if key not in metadata:
        _damaged(file, f"no {key}")
    try:
        return read_json(metadata[key])
    except ValueError as error:
        _damaged(file, f"{key} is no JSON of ours: {_shown(str(error))}")


def _damaged(file: Path, why: str) -> NoReturn:
    raise InputError("path", f"{file} with damaged metadata ({why})", _EXPECTED)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no finite number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key is there twice")
    return made


def _count(value: Any, depth: int) -> int:
    if depth > _DEPTH:
        raise ValueError("it is nested too deep")
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return 1 + sum(_count(item, depth + 1) for item in value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no finite number")  # as 1e999 is
    return 1


# --- what fields may hold ------------------------------------------------------------------------


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 2_000 and "\0" not in value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _NUMBER


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _is_list_of(check: _Check) -> _Check:
    return lambda value: (
        isinstance(value, list) and 0 < len(value) <= _VALUES and all(map(check, value))
    )


def _or_none(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _is_setting(value: Any) -> bool:
    """Tell settings of a network that are within bounds and fetch nothing when it is built."""
    if isinstance(value, dict):
        fetching = any(value.get(key) for key in _FETCHING)
        attention = any(value.get(key) not in (None, "eager", "sdpa") for key in _ATTENTION)
        return not fetching and not attention and all(map(_is_setting, value.values()))
    if isinstance(value, list):
        return all(map(_is_setting, value))
    if isinstance(value, int):
        return abs(value) <= _NUMBER
    return not isinstance(value, str) or (len(value) <= 10_000 and "\0" not in value)


def _are_settings(value: Any) -> bool:
    return isinstance(value, dict) and _is_setting(value)


def _is_deviation(value: Any) -> bool:
    return _is_number(value) and value > 0


_ARCHITECTURE: dict[str, _Check] = {
    "name": _is_text,
    **dict.fromkeys(("classes", "in_channels", "size"), _or_none(_is_whole)),
    "mean": _or_none(_is_list_of(_is_number)),
    "std": _or_none(_is_list_of(_is_deviation)),
    **dict.fromkeys(("standardize", "attributing", "discriminator"), _is_flag),
    "weights": _or_none(_is_text),
    "options": _are_settings,
    "config": _or_none(_are_settings),
}
_PREPROCESSING: dict[str, _Check] = {
    "size": _is_list_of(_is_whole),
    "resize": _or_none(_is_whole),
    **dict.fromkeys(("mode", "interpolation"), _is_text),
    "antialias": _is_flag,
    "channels": _is_whole,
    "mean": _or_none(_is_list_of(_is_number)),
    "std": _or_none(_is_list_of(_is_deviation)),
}


def _of_older(architecture: Architecture) -> Preprocessing | None:
    """Say how images became those of the run, where the file is too old to say it."""
    if architecture.size is None:
        return None
    return Preprocessing(
        (architecture.size, architecture.size),
        mode="squash",
        channels=architecture.in_channels or 3,
        mean=architecture.mean,
        std=architecture.std,
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
