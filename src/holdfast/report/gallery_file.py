"""Reading the pictures that an audit keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import safe_open

from holdfast.contracts import InputError
from holdfast.records import is_name
from holdfast.training.metadata import read_json

__all__ = ["PANELS", "SCORES", "read_gallery"]

PANELS = {
    "images": "image",
    "maps": "map",
    "perturbed_images": "image after",
    "perturbed_maps": "map after",
}
SCORES = ("kendall_tau", "top_k_intersection", "preserved")
# The shapes of what a gallery holds: once, for an attack on explanations, for a localization.
_ONCE = {"index": "n", "label": "n"}
_MAY_BE = {"worst": "n", "boxes": "n 4", "masks": "n H W", "images": "n C H W"}
_ATTACKED = dict.fromkeys(PANELS, "n C H W") | dict.fromkeys(SCORES, "n")
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("images", "perturbed_images", "heat_maps", "thresholds"), (0.0, 1.0)),
    **dict.fromkeys(("top_k_intersection", "preserved", "worst", "masks"), (0.0, 1.0)),
    "kendall_tau": (-1.0, 1.0),
}
_LOCALIZED = {"heat_maps": "n H W", "thresholds": "t", "estimated_boxes": "n t 4"}


def read_gallery(path: Path) -> tuple[dict[str, np.ndarray] | None, tuple[str, ...]]:
    """Read the pictures of an audit, and the names of the classes; nothing if there is no file.

    Parameters
    ----------
    path : Path
        The file, in safetensors. It holds ``index`` and ``label`` ``(n,)``, and where they are
        known ``worst`` ``(n,)``, whether an image was picked for its low similarity, ``boxes``
        ``(n, 4)``, ``masks`` ``(n, H, W)`` and ``images`` ``(n, C, H, W)``. For each attack on
        explanations ``CHECK|images``, ``CHECK|maps``, ``CHECK|perturbed_images`` and
        ``CHECK|perturbed_maps`` ``(n, C, H, W)``, ``CHECK|kendall_tau``,
        ``CHECK|top_k_intersection`` and ``CHECK|preserved`` ``(n,)``. For each weakly supervised
        localization ``CHECK|heat_maps`` ``(n, H, W)`` in [0, 1], ``CHECK|thresholds`` ``(t,)`` and
        ``CHECK|estimated_boxes`` ``(n, t, 4)``.

    Raises
    ------
    InputError
        If the file cannot be read, or something in it is missing or of another shape.

    Examples
    --------
    >>> read_gallery(Path("nowhere.safetensors"))
    (None, ())
    """
    if not path.exists():
        return None, ()
    if not path.is_file():
        raise InputError(str(path), "no file", "a gallery in safetensors")
    try:
        with safe_open(path, framework="numpy") as file:
            gallery = {key: np.asarray(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
            classes = read_json((file.metadata() or {}).get("classes", "[]"))
    except Exception as error:  # a damaged file makes readers fail in any way at all
        came = f"a file that cannot be read ({str(error)[:200]})"
        raise InputError(str(path), came, "a gallery in safetensors") from error
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise InputError(str(path), "others", "names of classes")
    _check(gallery, path)
    _check_values(gallery, len(classes), path)
    return gallery, tuple(classes)


def _check(gallery: dict[str, np.ndarray], path: Path) -> None:
    """Refuse a gallery in which something is missing, of another shape, or no finite number."""
    wanted = dict(_ONCE) | {key: shape for key, shape in _MAY_BE.items() if key in gallery}
    held: dict[str, set[str]] = {}
    for check, bar, panel in (key.rpartition("|") for key in gallery):
        if bar and not is_name(check):
            raise InputError(str(path), repr(check[:40]), "names of checks")
        if bar:
            held.setdefault(check, set()).add(panel)
    for check, panels in held.items():
        kind = _LOCALIZED if panels & set(_LOCALIZED) else _ATTACKED
        wanted |= {f"{check}|{name}": shape for name, shape in kind.items()}
    for key, shape in sorted(wanted.items(), key=lambda pair: pair[0] not in _ONCE):
        if key not in gallery:
            raise InputError(str(path), f"none named {key}", f"a tensor {key}")
        array, count = gallery[key], gallery["index"].size
        sides = shape.split()
        if array.dtype.kind not in "biuf":
            raise InputError(str(path), f"{key} of {array.dtype}", "numbers")
        fits = array.ndim == len(sides) and all(
            (side != "n" or have == count) and (side != "4" or have == 4)
            for side, have in zip(sides, array.shape, strict=True)
        )
        if not fits:
            told = ", ".join(sides).replace("n", str(count), sides.count("n"))
            told = f"({told},)" if len(sides) == 1 else f"({told})"
            raise InputError(str(path), f"shape {array.shape}", f"{key} of shape {told}")
        # An image may have no box.
        if key != "boxes" and not np.isfinite(array).all():
            raise InputError(str(path), f"NaN or infinite values in {key}", "finite values")


def _check_values(gallery: dict[str, np.ndarray], classes: int, path: Path) -> None:
    """Refuse numbers that cannot be what they are called."""
    for key in _ONCE:
        if gallery[key].dtype.kind not in "iu":
            raise InputError(str(path), f"{key} of {gallery[key].dtype}", "whole numbers")
    _check_range(gallery, "index", (0, 2**40), path)
    _check_range(gallery, "label", (0, classes - 1 if classes else 2**40), path)
    if len(np.unique(gallery["index"])) < gallery["index"].size:
        raise InputError(str(path), "an image twice", "each index once")
    for key, array in gallery.items():
        check, _, panel = key.rpartition("|")
        if panel in _RANGES:
            _check_range(gallery, key, _RANGES[panel], path)
        if array.ndim == 4 and (0 in array.shape[1:] or array.shape[1] not in (1, 3)):
            raise InputError(str(path), f"{key} of shape {array.shape}", "pictures to be shown")
        beside = gallery.get(f"{check}|images")
        if panel in PANELS and beside is not None and array.shape[2:] != beside.shape[2:]:
            expected = f"{key} as high and wide as its images"
            raise InputError(str(path), f"shape {array.shape}", expected)


def _check_range(
    gallery: dict[str, np.ndarray], key: str, bounds: tuple[float | int, float | int], path: Path
) -> None:
    values = gallery[key]
    if values.size and not (bounds[0] - 1e-6 <= values.min() and values.max() <= bounds[1] + 1e-6):
        odd = values.min() if values.min() < bounds[0] - 1e-6 else values.max()
        raise InputError(str(path), f"{odd:.8g}", f"{key} from {bounds[0]:,} to {bounds[1]:,}")
