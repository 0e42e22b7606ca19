"""What is to be audited, on what, with which battery: from the words of a command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from holdfast.audit.batteries import BATTERIES
from holdfast.audit.battery import Audit
from holdfast.contracts import HoldfastError
from holdfast.data import ImageData, ImageDataset
from holdfast.models import Architecture, evaluating
from holdfast.training import load
from holdfast.training.recipe import build, overlay, read_recipe, to_settings

__all__ = ["Assignment", "assign"]


@dataclass(frozen=True)
class Assignment:
    """An audit, and how to come by what it is called with.

    Attributes
    ----------
    load_model, load_data : callable
        Return the model and the data set, in any process.
    audit : Audit
        The battery.
    folder : Path
        What `holdfast.report.read_run` reads; the records go into its folder ``audit``.
    """

    load_model: Callable[[], nn.Module]
    load_data: Callable[[], ImageDataset]
    audit: Audit
    folder: Path


def assign(
    subject: str,
    *,
    battery: str | None = None,
    eps: str | None = None,
    data: str | None = None,
    source: str | None = None,
    reference: str | None = None,
    out: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Assignment:
    """Find the model and the data, see that they fit each other, and make the battery.

    Parameters
    ----------
    subject : str
        The folder of a trained run; or ``package.module:function``, a function without arguments
        that returns a module from images in [0, 1] to logits; or the name of a network of
        torchvision, with its default weights.
    battery : str, optional
        One of `BATTERIES`. By default, for a run the audit of its recipe, and else ``standard``.
    eps : str, optional
        The battery's ε, such as ``0.1`` or ``8/255``.
    data : str, optional
        What is audited on, as `ImageData.path`; by default the run's own data.
    source, reference : str, optional
        Folders of runs for the battery.
    out : str, optional
        `Assignment.folder`; by default the folder of the run, or ``runs/SUBJECT``.
    overrides : mapping, optional
        Settings at dotted keys: ``data.…`` and ``audit.…``, and for a subject that is no run
        ``model.…``.

    Raises
    ------
    HoldfastError
        If there is no such subject, battery, run or data; or the model does not take the images, or
        has not their classes.

    Examples
    --------
    >>> assign("no/such/run")
    Traceback (most recent call last):
        ...
    holdfast.contracts.HoldfastError: no/such/run is no folder of a trained run, no \
package.module:function and no network of torchvision
    """
    overrides = dict(overrides or {})
    run = Path(subject).is_dir()
    _check_keys(overrides, ("data", "audit") if run else ("data", "audit", "model"))
    settings = _settings(subject, run, data, overrides)
    load_data = _Once(partial(build(ImageData, settings["data"]).load, "test"))
    images = load_data()
    if run:
        load_model = _Once(partial(load, subject))
    else:
        architecture = _architecture(subject, settings.get("model", {}), images)
        load_model = _Once(partial(_made, architecture))
    model = load_model()
    _check_fit(model, images, subject)

    if battery is None and run:
        if (eps, source, reference) != (None, None, None):
            raise HoldfastError("--eps, --source and --reference go with --battery")
        audit = build(Audit, settings.get("audit", {}))
    else:
        audit = _battery(battery or "standard", images, model, eps, source, reference)
    changes = {key: value for key, value in overrides.items() if _group(key) == "audit"}
    if changes:
        tree = overlay({"audit": to_settings(audit)["init_args"]}, changes)
        audit = build(Audit, tree["audit"])
    folder = Path(subject) if run else Path("runs") / subject.replace(":", ".")
    return Assignment(load_model, load_data, audit, Path(out) if out else folder)


class _Once:
    """Loads when first called, and again only in another process: sent there, it is empty."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load

    def __call__(self) -> Any:
        return self._loaded

    @cached_property
    def _loaded(self) -> Any:
        return self._load()

    def __reduce__(self) -> tuple[type[_Once], tuple[Callable[[], Any]]]:
        return _Once, (self._load,)


def _check_keys(overrides: Mapping[str, Any], groups: tuple[str, ...]) -> None:
    for key in overrides:
        if _group(key) not in groups:
            known = ", ".join(f"--{group}.…" for group in groups)
            raise HoldfastError(f"there is no option --{key} here; settings are {known}")


def _group(key: str) -> str:
    return key.partition(".")[0]


def _settings(
    subject: str, run: bool, data: str | None, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the plain settings of the data and the model, and the run's own of the audit."""
    config = Path(subject) / "config.yaml"
    overrides = {key: value for key, value in overrides.items() if _group(key) != "audit"}
    if config.is_file():
        given = {key: value for key, value in read_recipe(config).items() if value is not None}
        settings = overlay(given, overrides)
    elif run and not (Path(subject) / "model.safetensors").is_file():
        raise HoldfastError(f"{subject} is no folder of a trained run: it has no config.yaml")
    elif run or ":" in subject or subject in _torchvision():
        settings = overlay({}, overrides)
    else:
        raise HoldfastError(
            f"{subject} is no folder of a trained run, no package.module:function and no network "
            "of torchvision"
        )
    path = data or settings.get("data", {}).get("path")
    if path is None:
        raise HoldfastError(f"no recipe says what {subject} is to be audited on; give --data")
    # A single file is a single split.
    split = {"test_split": "train"} if path.endswith(".parquet") else {}
    return {**settings, "data": {**split, **settings.get("data", {}), "path": path}}


def _torchvision() -> list[str]:
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def _architecture(subject: str, settings: Mapping[str, Any], data: ImageDataset) -> Architecture:
    """Describe a model of no run; one of torchvision has its default weights, or those named."""
    architecture: Architecture = build(Architecture, {"name": subject, **settings})
    if ":" in subject:
        return architecture
    if "weights" in settings and settings["weights"] is None:
        return dataclasses.replace(
            architecture, classes=len(data.classes), in_channels=data.shape[0]
        )
    known = torchvision.models.get_model_weights(subject)
    if (architecture.weights or "DEFAULT") not in known.__members__:
        names = ", ".join(known.__members__)
        raise HoldfastError(f"no weights {architecture.weights} of {subject}; there are {names}")
    weights = known[architecture.weights or "DEFAULT"]
    random = f"; --model.weights null makes one with random weights for {len(data.classes)}"
    _check_classes(len(weights.meta["categories"]), data, f"{subject}, {weights.name},", random)
    normal = weights.transforms()
    return dataclasses.replace(
        architecture,
        weights=weights.name,
        mean=architecture.mean or tuple(normal.mean),
        std=architecture.std or tuple(normal.std),
    )


def _made(architecture: Architecture) -> nn.Module:
    """Build a model, with the same weights in every process should they be drawn at random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return architecture.build()
        except HoldfastError:
            raise
        except Exception as error:  # a user's function, or a download, can fail in any way
            reason = f"{type(error).__name__}: {error}"
            raise HoldfastError(f"{architecture.name} cannot be made ({reason})") from error


def _check_fit(model: nn.Module, data: ImageDataset, subject: str) -> None:
    """See that the model takes the images and answers with a logit for each class."""
    with evaluating(model), torch.no_grad():
        try:
            logits = model(data.batch([0])["images"])
        except Exception as error:  # a user's model can fail in any way
            shape = "×".join(map(str, data.shape))
            raise HoldfastError(
                f"{subject} cannot take the images of {data.name}, {shape} ({error}); see "
                "--data.size and --data.channels"
            ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise HoldfastError(f"{subject} answers with {came} instead of logits (N, K)")
    _check_classes(logits.shape[1], data, subject)


def _check_classes(count: int, data: ImageDataset, subject: str, hint: str = "") -> None:
    """Refuse a model of other classes than the data has.

    Where the data has no names for them, it may just lack examples of the last ones.
    """
    wanted = len(data.classes)
    nameless = data.classes == tuple(map(str, range(wanted)))
    if count < wanted or (count > wanted and not nameless):
        raise HoldfastError(f"{subject} has {count} classes, but {data.name} has {wanted}{hint}")


def _battery(
    name: str,
    data: ImageDataset,
    model: nn.Module,
    eps: str | None,
    source: str | None,
    reference: str | None,
) -> Audit:
    if name not in BATTERIES:
        raise HoldfastError(f"no battery {name!r}; there are {', '.join(BATTERIES)}")
    others = {"source": source, "reference": reference}
    loaded = {role: load(run) for role, run in others.items() if run is not None}
    for role, other in loaded.items():
        _check_fit(other, data, f"the {role} {others[role]}")
    radius = {} if eps is None else {"eps": _number(eps)}
    return BATTERIES[name](data, model=model, **loaded, **radius)


def _number(text: str) -> float:
    """Read a number above 0, which may be a fraction."""
    try:
        number = float(Fraction(text.replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        number = 0.0
    if number <= 0:
        raise HoldfastError(f"--eps is {text!r}; expected a number above 0, such as 0.1 or 8/255")
    return number
