"""What a local folder holds: which files are the images, or the Parquet, of which split and class.

The rule is Holdfast's own, stated in ``docs/data.md``. Where a folder can be read in two ways it is
refused, in one line that says how to make it plain.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from holdfast.contracts import HoldfastError, InputError
from holdfast.data.labels import in_order

__all__ = ["READABLE", "SPLITS", "ImageFiles", "image_files", "parquet_files", "split_of"]

SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""What folders and files of each split may be called; likewise ``train_set`` and ``trainset``."""

_IMAGES = """
    .apng .avif .bmp .dib .gif .ico .j2k .jfif .jp2 .jpe .jpeg .jpg .jpx .pbm .pgm .png .pnm .ppm
    .tif .tiff .webp
"""
_TEXTS = """
    .cfg .csv .db .htm .html .ini .ipynb .json .jsonl .lnk .log .md .md5 .py .rst .sha256 .sh .toml
    .tsv .txt .url .xml .yaml .yml
"""
READABLE = frozenset(_IMAGES.split())
"""The endings of image files."""
_BESIDE = frozenset(_TEXTS.split())
"""The endings of what may stand beside images, and is not read."""
_CLUTTER = {"__macosx", "__pycache__", "$recycle.bin", "system volume information", "thumbs.db"}

_SHARD = re.compile(r"(?P<name>.*?)(?:[-_. ]?(?P<number>\d+)(?:-of-(?P<count>\d+)(?:-\w+)?)?)?")

ImageFiles = dict[str, dict[str | None, list[Path]]]
"""The files of each class of each split; of class None where a split has no folders of classes."""


def split_of(name: str, named: Collection[str] = ()) -> str | None:
    """Return the split that a folder or file of this name is, or none.

    Parameters
    ----------
    name : str
        Its name, without an ending; upper or lower case is the same.
    named : collection of str
        What the user calls splits.

    Examples
    --------
    >>> split_of("Training"), split_of("test_set"), split_of("testify"), split_of("2024", ["2024"])
    ('train', 'test', None, '2024')
    """
    plain = re.sub(r"[-_ ]?set$", "", name.lower())
    for split, names in SPLITS.items():
        if plain in names:
            return split
    return name if name in named else None


def image_files(folder: Path, named: Collection[str] = ()) -> ImageFiles:
    """List the images of each split and class of a folder.

    Parameters
    ----------
    folder : Path
        ``train/<class>/1.png`` and so on; or ``<class>/1.png``, which is all "train".
    named : collection of str
        What the user calls splits, beside `SPLITS`.

    Returns
    -------
    dict
        By split, then by class, both in order, the files in the order of their names.

    Raises
    ------
    InputError
        If there are no images; if some lie outside the folders of classes or deeper; if only some
        of the top folders are called as splits are, or two as the same one; if a file among the
        images is none that can be read.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("train/dog/1.png", "train/cat/2.png", "test/test/3.PNG"):
    ...     (folder / name).parent.mkdir(parents=True)
    ...     (folder / name).touch()
    >>> {split: list(classes) for split, classes in image_files(folder).items()}
    {'train': ['cat', 'dog'], 'test': ['test']}
    """
    files, folders = _entries(folder)
    splits: dict[str, Path] = {}
    others = []
    for top in folders:
        split = split_of(top.name, named)
        if split is None:
            others.append(top)
        elif split in splits:
            came = f"{_shown(splits[split])} and {_shown(top)}, both the split {split!r}"
            raise _refusal(folder, came, "one folder for each split")
        else:
            splits[split] = top
    if not splits:
        found = {"train": _classes(folder, files, folders)}
    else:
        extra = [top for top in others if next(_images_below(top), None)]
        if extra:
            came = f"{_listed(splits.values())} beside {_listed(extra)}"
            expected = (
                "folders of splits alone or of classes alone: put the classes into a folder train, "
                "or move away what belongs to no split"
            )
            raise _refusal(folder, came, expected)
        order = [
            *(split for split in SPLITS if split in splits),
            *sorted(set(splits) - set(SPLITS)),
        ]
        found = {split: _classes(splits[split], *_entries(splits[split])) for split in order}
    found = {split: classes for split, classes in found.items() if classes}
    if not found:
        raise InputError(
            "ImageData.path", repr(str(folder)), "a folder of images or of Parquet files"
        )
    return found


def _classes(folder: Path, files: list[Path], folders: list[Path]) -> dict[str | None, list[Path]]:
    """List the images of a split by class, or all under None if there are no folders of classes."""
    loose = [file for file in files if file.suffix.lower() in READABLE]
    by_class: dict[str | None, list[Path]] = {}
    for path in folders:
        name = unicodedata.normalize("NFC", path.name)
        if name in by_class:
            came = f"two folders called {name!r} in {_shown(folder)}"
            raise _refusal(folder, came, "one folder for each class")
        if images := _images(path):
            by_class[name] = images
    if loose and by_class:
        came = f"{_shown(loose[0])}, which lies in no folder of a class"
        raise _refusal(folder, came, "images in the folders of their classes")
    if loose:
        return {None: [_checked(file) for file in loose]}
    return {name: by_class[name] for name in in_order(list(map(str, by_class)))}


def _images(folder: Path) -> list[Path]:
    """List the images of a class; refuse what might be one, and is none that is read."""
    files, folders = _entries(folder)
    for nested in folders:
        for deeper in _images_below(nested):
            came = f"{_shown(deeper, folder.parent)}, deeper than the folder of a class"
            expected = (
                f"images right in the folders of their classes, as {deeper.parent.name!r} and "
                f"{folder.name!r} could both be the class"
            )
            raise _refusal(folder.parent, came, expected)
    images = []
    for file in files:
        ending = file.suffix.lower()
        if ending in READABLE:
            images.append(_checked(file))
        elif ending not in _BESIDE:
            expected = f"images among them ({' '.join(sorted(READABLE))}), and text beside them"
            raise _refusal(folder.parent, _shown(file, folder.parent), expected)
    return images


def _checked(file: Path, kind: str = "image files") -> Path:
    if not file.is_file():  # a pipe would never end
        raise _refusal(file.parent, f"{file.name}, no regular file", kind)
    if _printable(str(file)) != str(file):
        raise _refusal(file.parent, file.name, "names in UTF-8")
    return file


def parquet_files(folder: Path, named: Collection[str] = ()) -> dict[str, list[Path]]:
    """List the Parquet files of each split of a folder, if there are any.

    Parameters
    ----------
    folder : Path
        With ``train.parquet``, or ``train-00000-of-00002.parquet`` and so on, or the same in a
        folder ``data``; or with folders called as splits that hold Parquet of any name. Files that
        no split is named by are all "train".
    named : collection of str
        What the user calls splits, beside `SPLITS`.

    Raises
    ------
    InputError
        If a shard is missing; if only some files are called as splits are; if it is not plain which
        belong together.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("test", "train-00001-of-00002", "train-00000-of-00002"):
    ...     (folder / f"{name}.parquet").touch()
    >>> for split, files in parquet_files(folder).items():
    ...     print(split, [file.stem for file in files])
    train ['train-00000-of-00002', 'train-00001-of-00002']
    test ['test']
    """
    files, folders = _entries(folder)
    below = next((_entries(top)[0] for top in folders if top.name == "data"), [])
    for found in (_parquet(files), _parquet(below)):
        if found:
            return _by_split(folder, found, named)
    splits: dict[str, list[Path]] = {}
    for top in folders:
        split = split_of(top.name, named)
        found = _parquet(_entries(top)[0]) if split else []
        if split is None or not found:
            continue
        if split in splits:
            raise _refusal(folder, f"two folders of the split {split!r}", "one for each split")
        splits[split] = _shards(folder, found)
    return _sorted_splits(splits)


def _by_split(folder: Path, files: list[Path], named: Collection[str]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for file in files:
        name = file.stem if file.stem in named else _shard(file)[0]
        groups.setdefault(name, []).append(file)
    splits = {name: split_of(name, named) for name in groups}
    if not any(splits.values()):
        if len(groups) > 1:
            came = _listed(group[0] for group in groups.values())
            raise _refusal(folder, came, "files named by their splits: train.parquet, test.parquet")
        return {"train": _shards(folder, files)}
    if None in splits.values() or len(set(splits.values())) < len(splits):
        came = _listed(group[0] for group in groups.values())
        expected = "one file, or numbered files, for each split, and no other Parquet"
        raise _refusal(folder, came, expected)
    return _sorted_splits({split_of(n, named) or n: _shards(folder, f) for n, f in groups.items()})


def _sorted_splits(splits: dict[str, list[Path]]) -> dict[str, list[Path]]:
    order = [*SPLITS, *sorted(set(splits) - set(SPLITS))]
    return {split: splits[split] for split in order if split in splits}


def _shards(folder: Path, files: list[Path]) -> list[Path]:
    """Bring the files of a split in order; refuse where one is missing."""
    numbered = sorted((_shard(file)[1:], file.name, file) for file in files)
    counts = {count for (_, count), _, _ in numbered}
    numbers = [number for (number, _), _, _ in numbered]
    if counts != {0} and (len(counts) > 1 or numbers != list(range(counts.pop()))):
        came = _listed(file for _, _, file in numbered)
        raise _refusal(folder, came, "each shard of a split once, 00000-of-… and so on")
    return [file for _, _, file in numbered]


def _shard(file: Path) -> tuple[str, int, int]:
    """Take a file's name apart: what it is called, which shard, of how many (0 if not said)."""
    parts = _SHARD.fullmatch(file.stem)
    assert parts is not None
    return parts["name"], int(parts["number"] or -1), int(parts["count"] or 0)


def _parquet(files: list[Path]) -> list[Path]:
    return [_checked(file, "Parquet files") for file in files if file.suffix.lower() == ".parquet"]


# --- folders on disk ------------------------------------------------------------------------------


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """List what is in a folder, files and folders, in the order of their names, links followed."""
    files: list[Path] = []
    folders: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                path = folder / entry.name
                if _is_clutter(entry.name) or (entry.is_symlink() and _leads_back(path)):
                    continue
                if not os.path.exists(path):
                    raise _refusal(folder, f"{entry.name}, a link to nothing", "links that lead on")
                (folders if entry.is_dir() else files).append(path)
    except OSError as error:
        raise HoldfastError(
            f"{_printable(str(folder))} cannot be read: {error.strerror}"
        ) from error
    return sorted(files, key=lambda file: file.name), sorted(folders, key=lambda path: path.name)


def _images_below(folder: Path, above: tuple[tuple[int, int], ...] = ()) -> Iterator[Path]:
    """Find images anywhere below a folder; a link back to a folder above is not followed."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above or len(above) > 20:
        return
    files, folders = _entries(folder)
    yield from (file for file in files if file.suffix.lower() in READABLE)
    for deeper in folders:
        yield from _images_below(deeper, (*above, here))


def _is_clutter(name: str) -> bool:
    plain = name.lower()
    return plain.startswith(".") or plain in _CLUTTER or plain.endswith(":zone.identifier")


def _leads_back(link: Path) -> bool:
    """Tell a link to a folder that it lies in itself."""
    here, there = os.path.realpath(link.parent), os.path.realpath(link)
    return here == there or here.startswith(there.rstrip(os.sep) + os.sep)


def _refusal(folder: Path, came: str, expected: str) -> InputError:
    return InputError("ImageData.path", _printable(f"{came} in {folder}"), expected)


def _shown(path: Path, start: Path | None = None) -> str:
    return path.name if start is None else path.relative_to(start).as_posix()


def _printable(text: str) -> str:
    """Write what is no text, as a name of a file may be, in text."""
    return text.encode("utf-8", "backslashreplace").decode()


def _listed(paths: Iterable[Path], most: int = 4) -> str:
    names = [path.name for path in paths]
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")
