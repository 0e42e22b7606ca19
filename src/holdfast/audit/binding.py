"""What an audit is bound to: the images and labels, the model, and every part of its settings."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import math
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from holdfast import plain_yaml
from holdfast.audit.repeatable import device_of, fingerprint, provenance, seeded
from holdfast.contracts import HoldfastError
from holdfast.data import ImageDataset
from holdfast.files import whole
from holdfast.models import classify, evaluating
from holdfast.parts import part_file, settings_digest, with_digest
from holdfast.training.code import code_digest, is_own, tensor_digest
from holdfast.training.recipe import to_settings

__all__ = ["claim"]

ASKED = 8
"""So many images are put to the model, to know it by its answers."""
CLOSE = 0.02
"""Answers are the same if they differ by less, relative to the largest: devices round otherwise."""


def claim(
    out: Path, audit: Any, model: nn.Module, data: ImageDataset, digests: Mapping[str, str]
) -> str:
    """Write down what an audit is bound to, or see that it is what was begun in the folder.

    Parameters
    ----------
    out : Path
        The folder.
    audit : Audit
        The battery. Models among its parts are known by their weights, and code of the user's own
        by what it does.
    model : Module
        The classifier. It is known by its weights and buffers, by its modules, by the code of those
        that are the user's own, and by its answers to a few images.
    data : ImageDataset
        The images.
    digests : mapping
        `digests_of` the data.

    Returns
    -------
    str
        The digest of these settings, which every file of the audit carries.

    Raises
    ------
    HoldfastError
        If the folder holds an audit of other things, or one of which nobody can tell.
    """
    bound = {
        "data": {"images": len(data), "shape": list(data.shape), "digests": dict(digests)},
        "model": fingerprint(model),
        "model_code": _structure(model),
        "model_answers": _answers(model, data),
        "parts": dict(_parts("", audit)),
        **to_settings(audit)["init_args"],
    }
    file = out / "settings.yaml"
    choose = "remove it or choose another folder"
    if not file.exists():
        if part_file(out, 0).exists() or any(out.glob("part-*.parquet")):
            raise HoldfastError(
                f"{out} holds records, but no settings.yaml that says what they were made with; "
                + choose
            )
        made_with = {name: version(name) for name in _VERSIONS}
        bound["data"] = {"name": data.name, **bound["data"]}
        told = {**bound, **provenance(model), "versions": made_with}
        text = plain_yaml.dump(told)
        with whole(file) as unfinished:
            unfinished.write_text(with_digest(text), encoding="utf-8", newline="\n")
    # What stands there is read back in any case: another process may have been first.
    begun, digest = _read(file, choose)
    # A setting that an older Holdfast did not have yet was what it is by default.
    begun = to_settings(type(audit)())["init_args"] | begun
    differ = list(_differences(begun, bound))
    if differ:
        raise HoldfastError(
            f"{out} holds an audit with other settings ({', '.join(differ)}); {choose}"
        )
    return digest


_VERSIONS = ("holdfast", "torch", "torchvision", "numpy")


def _read(file: Path, choose: str) -> tuple[dict[str, Any], str]:
    try:
        begun = plain_yaml.read(file)
        text = file.read_text(encoding="utf-8")
    except (HoldfastError, OSError, UnicodeDecodeError) as error:
        raise HoldfastError(f"{error}; {choose}") from error
    if isinstance(begun, dict) and "digest" not in begun and "model" in begun:
        raise HoldfastError(
            f"{file.parent} holds an audit by an older Holdfast, which is not bound to its images "
            f"and cannot be gone on with; {choose}"
        )
    digest = settings_digest(text)
    if digest is None or not isinstance(begun, dict):
        raise HoldfastError(f"{file} is damaged or was changed by hand; {choose}")
    return begun, digest


def _differences(begun: Mapping[str, Any], bound: Mapping[str, Any]) -> Iterator[str]:
    """Name what is not as it was when the audit began."""
    # As it comes back from a file.
    bound = plain_yaml.parse(plain_yaml.dump(dict(bound)), "settings.yaml")
    of_data = list(_differences_of_data(begun.get("data"), bound["data"]))
    yield from of_data
    if begun.get("model") != bound["model"]:
        yield "model"
    elif begun.get("model_code") != bound["model_code"]:
        yield "the code of the model"
    elif not (of_data or _close(begun.get("model_answers"), bound["model_answers"])):
        yield "the answers of the model"
    told_above = ("data", "model", "model_code", "model_answers", "parts")
    changed = [name for name in bound if name not in told_above and begun.get(name) != bound[name]]
    yield from changed
    # Models and code may be others behind the same settings.
    old, new = begun.get("parts") or {}, bound["parts"]
    for name in {**old, **new}:
        if old.get(name) != new.get(name) and name.partition(".")[0] not in changed:
            yield f"what {name} is"


def _differences_of_data(was: Any, now: Mapping[str, Any]) -> Iterator[str]:
    was = was if isinstance(was, dict) else {}
    if was.get("images") != now["images"]:
        yield f"the number of images, {was.get('images')} and not {now['images']}"
    elif was.get("shape") != now["shape"]:
        yield "the size of the images"
    else:
        old, new = was.get("digests") or {}, now["digests"]
        changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        yield from ("the images or their order" if n == "images" else n for n in changed)


# --- models --------------------------------------------------------------------------------------


def _structure(model: nn.Module) -> str:
    """Hash what modules a model is made of, and what those of the user's own do."""
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        kind = type(module)
        said = [name, f"{kind.__module__}.{kind.__qualname__}", _described(module)]
        if is_own(kind):
            said.append(code_digest(kind))
        if "forward" in vars(module):
            said.append(code_digest(module.forward))
        for kept in ("_forward_pre_hooks", "_forward_hooks"):
            said += [code_digest(hook) for hook in getattr(module, kept, {}).values()]
        digest.update("\0".join(said).encode("utf-8", "surrogatepass"))
    saved = set(model.state_dict())
    for name, buffer in model.named_buffers():
        if name not in saved:
            digest.update(f"{name} {tensor_digest(buffer)}".encode())
    return digest.hexdigest()[:16]


def _described(module: nn.Module) -> str:
    """Return what a module says of itself, and the program of one that is traced."""
    try:
        return f"{module.extra_repr()} {getattr(module, 'code', '')}"
    except Exception:  # of a user's module, or of one that was made in another way
        return ""


def _answers(model: nn.Module, data: ImageDataset) -> list[float]:
    """Put a few images to the model, and condense its logits to a number each."""
    if len(data) == 0:
        return []
    images = data.batch(range(min(ASKED, len(data))))["images"].to(device_of(model))
    with evaluating(model), seeded(0, -3), torch.no_grad():
        logits = classify(model, images).double().cpu()
    count = logits.shape[1]
    weights = torch.cos(torch.arange(1, count + 1, dtype=torch.float64)) / math.sqrt(count)
    return [float(f"{value:.6g}") for value in (logits @ weights).tolist()]


def _close(begun: Any, now: list[float]) -> bool:
    if not isinstance(begun, list) or len(begun) != len(now):
        return False
    largest = max(map(abs, now), default=0.0)
    return all(abs(a - b) <= CLOSE * largest or a == b for a, b in zip(begun, now, strict=True))


# --- parts of an audit ---------------------------------------------------------------------------


def _parts(name: str, part: Any) -> Iterator[tuple[str, str]]:
    """Name the parts that a path does not tell enough of: models, and code of the user's own."""
    if isinstance(part, nn.Module):
        yield name, f"{fingerprint(part)} {_structure(part)}"
    elif isinstance(part, functools.partial):
        yield from _parts(name, [part.func, *part.args, part.keywords])
    elif isinstance(part, type) or inspect.isroutine(part):
        if is_own(part):
            yield name, code_digest(part)
    elif dataclasses.is_dataclass(part):
        if is_own(type(part)):
            yield name or "the battery", code_digest(type(part))
        for field in dataclasses.fields(part):
            yield from _parts(f"{name}.{field.name}".strip("."), getattr(part, field.name))
    elif isinstance(part, Mapping):
        for key, value in part.items():
            yield from _parts(f"{name}.{key}".strip("."), value)
    elif isinstance(part, tuple | list) and not isinstance(part, Tensor):
        for number, value in enumerate(part):
            yield from _parts(f"{name}.{number}", value)
