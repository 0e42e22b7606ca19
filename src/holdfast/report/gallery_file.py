"""Reading the pictures that an audit keeps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from holdfast.contracts import InputError

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
    try:
        with safe_open(path, framework="numpy") as file:
            gallery = {key: np.asarray(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
            classes = json.loads((file.metadata() or {}).get("classes", "[]"))
    except (SafetensorError, json.JSONDecodeError, OSError, TypeError) as error:
        came = f"a file that cannot be read ({error})"
        raise InputError(str(path), came, "a gallery in safetensors") from error
    _check(gallery, path)
    return gallery, tuple(str(name) for name in classes)


def _check(gallery: dict[str, np.ndarray], path: Path) -> None:
    """Refuse a gallery in which something is missing, of another shape, or no finite number."""
    wanted = dict(_ONCE) | {key: shape for key, shape in _MAY_BE.items() if key in gallery}
    held: dict[str, set[str]] = {}
    for check, bar, panel in (key.rpartition("|") for key in gallery):
        if bar:
            held.setdefault(check, set()).add(panel)
    for check, panels in held.items():
        kind = _LOCALIZED if panels & set(_LOCALIZED) else _ATTACKED
        wanted |= {f"{check}|{name}": shape for name, shape in kind.items()}
    for key, shape in sorted(wanted.items(), key=lambda pair: pair[0] not in _ONCE):
        if key not in gallery:
            raise InputError(str(path), f"none named {key}", f"a tensor {key}")
        array, count = gallery[key], len(gallery["index"])
        sides = shape.split()
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
