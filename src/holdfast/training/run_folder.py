"""What an earlier start has left in the folder of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from holdfast import plain_yaml
from holdfast.errors import HoldfastError
from holdfast.training.checkpoints import LAST, PREVIOUS, newest

__all__ = ["CONFIG", "MODEL", "Earlier", "check_free", "earlier", "flat"]

CONFIG, MODEL, CHECKPOINTS = "config.yaml", "model.safetensors", "checkpoints"


@dataclass(frozen=True)
class Earlier:
    """A training that was begun: from which checkpoint it goes on, or the weights that it ended by.

    Parameters
    ----------
    file : Path, optional
        The checkpoint.
    steps : int
        How many steps were taken until then.
    weights : dict of str to Tensor, optional
        The weights of the trained model, where training has ended.
    """

    file: Path | None = None
    steps: int = 0
    weights: dict[str, Tensor] | None = None


def check_free(out: Path) -> None:
    """Refuse a folder that holds a trained model, or checkpoints of one.

    Raises
    ------
    HoldfastError
        If there is one.
    """
    if (out / MODEL).exists():
        raise HoldfastError(f"{out} already holds a trained model; choose another folder")
    if any((out / CHECKPOINTS / name).exists() for name in (LAST, PREVIOUS)):
        raise HoldfastError(
            f"{out} holds checkpoints of a training that has not ended; --resume (resume=True) "
            "goes on from them, or choose another folder"
        )


def earlier(out: Path, bound: Mapping[str, Any]) -> Earlier | None:
    """Look how far a training came in a folder; None if it was not begun.

    Parameters
    ----------
    out : Path
        The folder.
    bound : mapping
        What training is bound to: the ``recipe``, as ``config.yaml`` has it, and digests of the
        ``data``.

    Raises
    ------
    HoldfastError
        If it was another recipe or other data, or the checkpoints are broken.
    """
    recipe = bound["recipe"]
    found = newest(out / CHECKPOINTS)
    model = _recipe_and_weights(out / MODEL)
    if found is not None:
        file, checkpoint = found
        _check_same(checkpoint["holdfast"]["recipe"], recipe, out)
        if model is not None and model[0] == recipe:
            return Earlier(weights=model[1])
        if checkpoint["holdfast"].get("data") != bound["data"]:
            raise HoldfastError(
                f"{out} was begun on other images or labels, though by the same recipe; choose "
                "another folder"
            )
        return Earlier(file, checkpoint["global_step"])
    if model is not None:
        _check_same(model[0], recipe, out)
        if model[0] == recipe:
            return Earlier(weights=model[1])
        raise HoldfastError(f"{out} holds a trained model, but no checkpoint to go on from")
    if (out / MODEL).exists():
        raise HoldfastError(f"{out / MODEL} cannot be read; remove it or choose another folder")
    if (out / CONFIG).exists():
        _check_same(plain_yaml.dump(plain_yaml.read(out / CONFIG)), recipe, out)
    return None


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Name each setting by its dotted key, as the command line does.

    Examples
    --------
    >>> flat({"objective": {"class_path": "ART", "init_args": {"weight": 0.5}}, "seed": 0})
    {'objective.class_path': 'ART', 'objective.weight': 0.5, 'seed': 0}
    """
    return dict(_named(settings))


def _recipe_and_weights(file: Path) -> tuple[str, dict[str, Tensor]] | None:
    """Read what a model was trained by, and its weights; None where it cannot be read."""
    try:
        with safe_open(file, framework="pt") as opened:
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return (opened.metadata() or {}).get("recipe", ""), weights
    except (OSError, SafetensorError):
        return None


def _check_same(begun: str, recipe: str, out: Path) -> None:
    before, now = (
        flat(plain_yaml.parse(text, f"the recipe that {out} was begun by"))
        for text in (begun, recipe)
    )
    missing = object()
    differ = [
        key
        for key in sorted(before.keys() | now.keys())
        if before.get(key, missing) != now.get(key, missing) and not _may_differ(key, before, now)
    ]
    if differ:
        raise HoldfastError(
            f"{out} was begun with other settings ({', '.join(differ)}); go on with those in "
            f"{out / CONFIG}, or choose another folder"
        )


def _may_differ(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether training may be longer by this setting than it was to be.

    A training of so many steps has ended in the midst of an epoch, with what belongs to the end of
    one: it does not go on as a longer one would have.
    """
    if now.get("trainer.max_steps") is not None:
        return False
    if key.startswith("trainer.max_time"):
        return True
    then, later = before.get(key), now.get(key)
    return (
        key == "trainer.max_epochs"
        and isinstance(then, int)
        and isinstance(later, int)
        and then < later
    )


def _named(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, Mapping) or not tree:
        yield prefix.removesuffix("."), tree
        return
    for key, value in tree.items():
        # The command line leaves out the init_args between a class and its arguments.
        yield from _named(value, prefix if key == "init_args" else f"{prefix}{key}.")
