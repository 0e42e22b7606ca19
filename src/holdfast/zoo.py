"""Released models by name: where their files are, and whether they are the ones that were released.

``zoo.yaml`` beside this file says which files the names of Holdfast's own releases stand for, by
their SHA-256. Wherever a file was found, in a folder or on the hub, it is taken for the release
only if its digest says so.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from holdfast import plain_yaml
from holdfast.errors import HoldfastError

__all__ = [
    "INDEX",
    "PREFIX",
    "Release",
    "check_label",
    "digest",
    "is_release",
    "located",
    "releases",
]

PREFIX = "zoo:"
"""What the name of a released model begins with, where a model is named."""

INDEX = "index.yaml"
"""What a folder of releases calls its list of them."""

_PLACE = "HOLDFAST_ZOO"
_FOLDER, _HUB = "zoo", "hf:holdfast/zoo"
_WORD = r"[a-z0-9][a-z0-9_.-]*"


class Release(NamedTuple):
    """What an index says of a released model.

    Attributes
    ----------
    sha256 : str
        The digest of its file.
    about : str
        A line about it.
    """

    sha256: str
    about: str = ""


def is_release(name: str | os.PathLike[str]) -> bool:
    """Tell whether a name is that of a released model; a file or folder goes before it.

    Examples
    --------
    >>> is_release("zoo:mnist/art"), is_release("hf:mnist/art")
    (True, False)
    """
    name = os.fspath(name)
    return name.startswith(PREFIX) and not os.path.exists(name)


def releases() -> dict[str, Release]:
    """List the released models by name.

    They are those of Holdfast, and those in the ``index.yaml`` of the folder that the environment
    variable ``HOLDFAST_ZOO`` names, if it names one. For a name in both, Holdfast's digest counts.

    Raises
    ------
    HoldfastError
        If an index is damaged.

    Examples
    --------
    >>> all(len(release.sha256) == 64 for release in releases().values())
    True
    """
    known = read_index(Path(__file__).with_suffix(".yaml"))
    own = _named_folder()
    if own is not None and (own / INDEX).is_file():
        known = {**read_index(own / INDEX), **known}
    return known


def located(name: str) -> Path:
    """Find the file of a released model, on this machine or on the hub, and check its digest.

    Parameters
    ----------
    name : str
        ``zoo:NAME``.

    Returns
    -------
    Path
        The file ``NAME.safetensors`` in the folder that ``HOLDFAST_ZOO`` names. Without that
        variable, in ``./zoo``, or else from the repository ``holdfast/zoo`` of the Hugging Face
        hub; ``HOLDFAST_ZOO=hf:OWNER/NAME`` names another repository. What was downloaded is kept.

    Raises
    ------
    HoldfastError
        If there is no such release, its file is nowhere to be had, or it is another file.

    Examples
    --------
    >>> located("zoo:nothing")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    holdfast.contracts.HoldfastError: there is no released model 'nothing'...
    """
    label = name.removeprefix(PREFIX)
    known = releases()
    if label not in known:
        named = f"; there are {', '.join(known)}" if known else ""
        raise HoldfastError(
            f"there is no released model {label!r}{named}. Releases of your own are found in the "
            f"folder that {_PLACE} names"
        )
    file = _found(check_label(label))
    found, expected = digest(file), known[label].sha256
    if found != expected:
        raise HoldfastError(
            f"{file} is not the released model {name}: its SHA-256 is {found[:16]}…, expected "
            f"{expected[:16]}…; remove it, or name another folder by {_PLACE}"
        )
    return file


def check_label(label: str) -> str:
    """Return the name of a release if it may be one: small letters, digits, ``_``, ``.``, ``-``.

    Raises
    ------
    HoldfastError
        If it is not; names could lead out of the folder otherwise.

    Examples
    --------
    >>> check_label("../mine")
    Traceback (most recent call last):
        ...
    holdfast.contracts.HoldfastError: '../mine' is no name of a release; expected one as mnist/art
    """
    if len(label) > 200 or not re.fullmatch(rf"{_WORD}(/{_WORD})*", label):
        raise HoldfastError(f"{label!r} is no name of a release; expected one as mnist/art")
    return label


def digest(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits.

    Raises
    ------
    HoldfastError
        If it cannot be read.

    Examples
    --------
    >>> digest(Path(__file__).with_suffix(".yaml")) == digest(Path(__file__))
    False
    """
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise HoldfastError(f"{file} cannot be read ({error.strerror})") from error


def read_index(file: Path) -> dict[str, Release]:
    """Read a list of releases: by name a digest ``sha256``, and if there is one a line ``about``.

    Raises
    ------
    HoldfastError
        If it is no such list.
    """
    return {
        label: _release(label, entry, file)
        for label, entry in plain_yaml.read_mapping(file).items()
    }


def _release(label: str, entry: Any, file: Path) -> Release:
    try:
        check_label(label)
    except HoldfastError as error:
        raise HoldfastError(f"{file}: {error}") from error
    fields = entry if isinstance(entry, Mapping) else {}
    text = all(isinstance(value, str) for value in fields.values())
    if not text or fields.keys() - {"sha256", "about"}:
        raise HoldfastError(f"{file}: {label} has to have sha256, and may have about: both text")
    if not re.fullmatch(r"[0-9a-f]{64}", fields.get("sha256", "")):
        raise HoldfastError(f"{file}: {label}.sha256 is no SHA-256 of 64 hexadecimal digits")
    return Release(fields["sha256"], fields.get("about", ""))


def _named_folder() -> Path | None:
    place = os.environ.get(_PLACE, "")
    return Path(place) if place and not place.startswith("hf:") else None


def _found(label: str) -> Path:
    place = os.environ.get(_PLACE, "")
    folder = _named_folder() or Path(_FOLDER)
    file = folder / f"{label}.safetensors"
    if file.is_file() and not place.startswith("hf:"):
        return file
    if _named_folder() is not None:
        raise HoldfastError(f"there is no file {file} in the folder that {_PLACE} names")
    return _downloaded(label, (place or _HUB).removeprefix("hf:"))


def _downloaded(label: str, repository: str) -> Path:
    from huggingface_hub import hf_hub_download

    from holdfast.hub import asking_the_hub, why_not

    with asking_the_hub() as asked:
        try:
            return Path(hf_hub_download(repository, f"{label}.safetensors"))
        except Exception as error:  # the client fails in many ways
            why = why_not(error, local=False, asked=asked)
            raise HoldfastError(
                f"the released model {label} is neither in ./{_FOLDER}, nor to be had from "
                f"{repository} ({why}); {_PLACE} names a folder of releases"
            ) from error
