"""What is to be audited, on what, with which battery: from the words of a command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from holdfast.audit.batteries import BATTERIES
from holdfast.audit.battery import Audit
from holdfast.contracts import HoldfastError
from holdfast.data import ImageData, ImageDataset, as_expected, match_classes
from holdfast.models import Architecture, classify, evaluating
from holdfast.training import load
from holdfast.training.loading import NamedModel, completed, find, is_random
from holdfast.training.recipe import build, overlay, part_of, read_recipe, to_settings
from holdfast.training.saving import is_saved
from holdfast.training.settings import from_a_run

__all__ = ["Assignment", "assign", "folder_of"]


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
    architecture: str | None = None,
    trust_code: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Assignment:
    """Find the model and the data, see that they fit each other, and make the battery.

    Parameters
    ----------
    subject : str
        Any model, by its name as `holdfast.load` takes it.
    battery : str, optional
        One of `BATTERIES`. By default, for a run the audit of its recipe, and else ``standard``.
    eps : str, optional
        The battery's ε, such as ``0.1`` or ``8/255``.
    data : str, optional
        What is audited on, as `ImageData.path`; by default the run's own data.
    source, reference : str, optional
        Models for the battery, by their names.
    out : str, optional
        `Assignment.folder`; by default `folder_of` the subject.
    architecture : str, optional
        The network of those of these models that are files of weights.
    trust_code : bool
        Whether a run may name code of its own, as in `holdfast.load`.
    overrides : mapping, optional
        Settings at dotted keys: ``data.…`` and ``audit.…``, and for a subject that is no run
        ``model.…``; ``model.weights`` None has random weights for the classes of the data.

    Raises
    ------
    HoldfastError
        If there is no such subject, battery, run or data; or the model does not take the images, or
        has not their classes.

    Notes
    -----
    Images are resized and cropped as the model's own configuration says, or the run's, as far as
    ``data.…`` does not say it. Labels become the places of the model's logits, see
    `holdfast.data.match_classes`.

    Examples
    --------
    >>> assign("no/such/run", data="digits")
    Traceback (most recent call last):
        ...
    holdfast.contracts.HoldfastError: there is no model 'no/such/run'; expected a run's folder, \
torchvision:NAME, timm:NAME, hf:NAME, zoo:NAME, package.module:function, or a file of weights with \
its architecture
    """
    overrides = dict(overrides or {})
    saved = is_saved(subject)
    _check_keys(overrides, ("data", "audit") if saved else ("data", "audit", "model"))
    with from_a_run(trust_code if saved else None):
        named = part_of(overlay({}, overrides), "model")
        if not saved:
            # Refuses what is wrong.
            made = build(Architecture, {"name": architecture or subject, **named}, "model")
            named = {key: getattr(made, key) for key in named}
            found = find(subject, architecture=architecture, settings=named)
        settings = _settings(subject, saved, data, overrides)
        wanted: ImageData = build(ImageData, settings["data"], "data")
        load_model: Callable[[], nn.Module]
        if saved:
            load_model = _Once(
                partial(load, subject, architecture=architecture, trust_code=trust_code)
            )
            if not (Path(subject) / "config.yaml").is_file() and load_model().preprocessing:
                wanted = as_expected(wanted, load_model().preprocessing)
        else:
            found, wanted = _fitted(found, named, wanted)
            load_model = _Once(found.build)
        model = load_model()
        images = wanted.load("test")
        classes = _check_fit(model, images, subject)
        load_data = _Once(partial(_labelled, wanted, classes))
        images = load_data()

        if battery is None and saved:
            if (eps, source, reference) != (None, None, None):
                raise HoldfastError("--eps, --source and --reference go with --battery")
            audit = build(Audit, part_of(settings, "audit"), "audit")
        else:
            others = {
                role: load(name, architecture=architecture, trust_code=trust_code)
                for role, name in (("source", source), ("reference", reference))
                if name is not None
            }
            for role, other in others.items():
                _check_same(f"the {role} {other.origin}", other, images, classes)
            audit = _battery(battery or "standard", images, model, eps, others)
        changes = {key: value for key, value in overrides.items() if _group(key) == "audit"}
        if changes:
            tree = overlay({"audit": to_settings(audit)["init_args"]}, changes)
            audit = build(Audit, tree["audit"], "audit")
    folder = Path(out) if out else folder_of(subject)
    return Assignment(load_model, load_data, audit, folder)


def folder_of(name: str) -> Path:
    """Return the folder for what is found out about a model: a run's own, or one in ``runs``.

    Examples
    --------
    >>> folder_of("hf:microsoft/resnet-50").as_posix()
    'runs/hf.microsoft.resnet-50'
    """
    if Path(name).is_dir():
        return Path(name)
    return Path("runs") / re.sub(r"[^\w.-]+", ".", name).strip(".")


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
    subject: str, saved: bool, data: str | None, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the plain settings of the data and the model, and the run's own of the audit."""
    config = Path(subject) / "config.yaml"
    overrides = {key: value for key, value in overrides.items() if _group(key) != "audit"}
    if saved and config.is_file():
        given = {key: value for key, value in read_recipe(config).items() if value is not None}
        settings = overlay(given, overrides)
    elif Path(subject).is_dir() and not any(
        (Path(subject) / file).is_file() for file in ("model.safetensors", "config.json")
    ):
        raise HoldfastError(f"{subject} is no folder of a trained run: it has no config.yaml")
    else:
        settings = overlay({}, overrides)
    path = data or part_of(settings, "data").get("path")
    if path is None:
        raise HoldfastError(f"no recipe says what {subject} is to be audited on; give --data")
    # A single file is a single split.
    split = {"test_split": "train"} if str(path).endswith(".parquet") else {}
    return {**settings, "data": {**split, **part_of(settings, "data"), "path": path}}


def _fitted(
    found: NamedModel, settings: Mapping[str, Any], data: ImageData
) -> tuple[NamedModel, ImageData]:
    """Fit the data to what the model says, and a model of random weights to the data."""
    architecture, subject = found.architecture, found.origin
    if is_random(settings) and architecture.source != "code":
        images = data.load("test")
        made = completed(Architecture(subject, **settings), images.classes, images.shape)
        return NamedModel(made, images.classes, None, subject), data
    if found.preprocessing is not None:
        data = as_expected(data, found.preprocessing)
    elif architecture.source in ("hf", "timm") and data.size is None:
        raise HoldfastError(f"{subject} does not say which images it expects; give --data.size")
    if found.classes is not None:
        data.load("test").for_model(found.classes)  # refused before anything is downloaded
    return found, data


def _labelled(data: ImageData, classes: tuple[str, ...] | int) -> ImageDataset:
    """Load the images to audit on, labelled by the places of the model's logits."""
    return data.load("test").for_model(classes)


def _check_fit(model: nn.Module, data: ImageDataset, subject: str) -> tuple[str, ...] | int:
    """See that the model takes the images; return its classes, by name or their number."""
    with evaluating(model), torch.no_grad():
        try:
            count = classify(model, data.batch([0])["images"]).shape[1]
        except HoldfastError as error:
            raise HoldfastError(f"{subject}: {error}") from error
        except Exception as error:  # a user's model can fail in any way
            shape = "×".join(map(str, data.shape))
            raise HoldfastError(
                f"{subject} cannot take the images of {data.name}, {shape} ({error}); see "
                "--data.size and --data.channels"
            ) from error
    names = getattr(model, "classes", None)
    return tuple(names) if names is not None and len(names) == count else count


def _check_same(
    what: str, other: nn.Module, data: ImageDataset, classes: tuple[str, ...] | int
) -> None:
    """Refuse another model whose logits are not those of the model that is audited."""
    theirs = _check_fit(other, data, what)
    count, expected = (v if isinstance(v, int) else len(v) for v in (theirs, classes))
    if count != expected:
        raise HoldfastError(f"{what} has {count} classes, but the model has {expected}")
    if isinstance(theirs, tuple) and isinstance(classes, tuple) and theirs != classes:
        order = match_classes(classes, theirs)
        if list(order) != list(range(count)):
            raise HoldfastError(f"{what} has the model's classes in another order")


def _battery(
    name: str,
    data: ImageDataset,
    model: nn.Module,
    eps: str | None,
    others: Mapping[str, nn.Module],
) -> Audit:
    if name not in BATTERIES:
        raise HoldfastError(f"no battery {name!r}; there are {', '.join(BATTERIES)}")
    words = {**others, **({} if eps is None else {"eps": _number(eps)})}
    for word in words.keys() - signature(BATTERIES[name]).parameters.keys():
        raise HoldfastError(f"--{word} is not for the battery {name}, which has its own settings")
    return BATTERIES[name](data, model=model, **words)


def _number(text: str) -> float:
    """Read a radius on images in [0, 1], which may be a fraction."""
    try:
        number = float(Fraction(text.replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        number = 0.0
    if not 0 < number <= 1:
        raise HoldfastError(
            f"--eps is {text!r}; expected a number above 0 and at most 1, as pixels are, such as "
            "0.1 or 8/255"
        )
    return number
