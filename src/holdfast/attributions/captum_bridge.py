"""The bridge to Captum: our methods in its shape, and its methods in ours.

Captum is imported only where a bridge is crossed: it would double the time of ``import holdfast``.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.attributions.target import resolve_targets
from holdfast.contracts import (
    Attribution,
    InputError,
    check_images,
    checked,
    chunks,
    default_chunk,
    generators,
)
from holdfast.models import classify, evaluating

if TYPE_CHECKING:
    import captum.attr

__all__ = ["FromCaptum", "as_captum", "from_captum"]


def as_captum(method: Attribution, model: nn.Module) -> captum.attr.Attribution:
    """Give one of our methods the shape of Captum's, for the tools that are made for that.

    Parameters
    ----------
    method : Attribution
        The method.
    model : nn.Module
        The classifier that it will explain.

    Returns
    -------
    captum.attr.Attribution
        Its ``attribute(inputs, target=None)`` takes images ``(N, C, H, W)`` in [0, 1] and one class
        for all or one an image, and returns the maps. Without a target it explains the prediction.

    Examples
    --------
    >>> from holdfast.attributions import Gradient
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> as_captum(Gradient(), model).attribute(torch.rand(3, 1, 2, 2), target=1).shape
    torch.Size([3, 1, 2, 2])
    """
    from captum.attr import Attribution as CaptumAttribution
    from captum.log import log_usage

    class AsCaptum(CaptumAttribution):  # type: ignore[misc] # captum's types are not read
        # Captum's own tools call the undecorated function that this decorator leaves behind.
        @log_usage()  # type: ignore[untyped-decorator]
        def attribute(
            self, inputs: Any, target: int | list[int] | Tensor | None = None, **_: object
        ) -> Any:
            images = inputs[0] if isinstance(inputs, tuple) else inputs
            if isinstance(target, Tensor):
                target = target.flatten().tolist()
            if target is not None:
                values = target if isinstance(target, list) else [target]
                target = torch.tensor(values, device=images.device)
                target = target.expand(len(images)) if len(target) == 1 else target
            maps = method(model, images, target)
            return (maps,) if isinstance(inputs, tuple) else maps

        @property
        def multiplies_by_inputs(self) -> bool:
            return False

        def has_convergence_delta(self) -> bool:
            return False

        def __repr__(self) -> str:
            return f"as_captum({method!r}, {type(model).__name__})"

    return AsCaptum(model)


def from_captum(
    method: type[Any], /, *, chunk: int | None = None, seed: int = 0, **settings: Any
) -> FromCaptum:
    """Make a class of Captum one of our methods.

    Parameters
    ----------
    method : type
        The class, ``captum.attr.DeepLift`` for example.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.
    seed : int
        What a random method (``GradientShap``, ``Lime``, ``KernelShap``, Shapley values) draws for
        an image depends on this and on the image's content alone; they take one image at a time.
    **settings
        Arguments of its constructor or of its ``attribute``. Modules, like the ``layer`` of
        ``GuidedGradCam``, are given by their dotted name.

    Raises
    ------
    InputError
        If the class has no ``attribute``, or takes no such argument. When called: if its maps have
        another shape than the images.

    Examples
    --------
    >>> import captum.attr
    >>> occlusion = from_captum(captum.attr.Occlusion, sliding_window_shapes=(1, 1, 1))
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> images = torch.rand(3, 1, 2, 2)
    >>> maps = occlusion(model, images, torch.tensor([0, 0, 1]))
    >>> torch.allclose(maps.flatten(1).sum(1), model(images)[[0, 1, 2], [0, 0, 1]])
    True
    """
    return FromCaptum(method, settings, chunk, seed)


@dataclass(frozen=True)
@checked
class FromCaptum:
    """A class of Captum with its settings, as one of our methods.

    In Python `from_captum` makes it; in a YAML file it stands by its own name, ``method`` by its
    import path. Its maps cannot be differentiated. What Captum asks of a model (a ReLU module a
    place, none of them in place, for some methods) it asks here, too.
    """

    method: type[Any]
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    chunk: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not (isinstance(self.method, type) and hasattr(self.method, "attribute")):
            came = getattr(self.method, "__name__", repr(self.method))
            raise InputError("method", came, "a class of captum.attr")
        known = {*_parameters(self.method), *_parameters(self.method.attribute)}
        unknown = sorted(set(self.settings) - known)
        if unknown:
            name = self.method.__name__
            raise InputError("settings", ", ".join(unknown), f"arguments that {name} has")

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        targets: Integer[Tensor, " n"] | None = None,
        *,
        create_graph: bool = False,
    ) -> Float[Tensor, "n c h w"]:
        """Return the map of each image, ``(N, C, H, W)``; the model runs in eval mode."""
        check_images(images)
        if create_graph:
            raise InputError("create_graph", True, "False: Captum's maps are not differentiable")
        random = self.method.__name__ in _RANDOM
        size = 1 if random else self.chunk or default_chunk(images)
        with evaluating(model), torch.enable_grad(), warnings.catch_warnings():
            # Captum warns of hooks and flags that it takes back itself.
            warnings.filterwarnings("ignore", message=r"\s*Setting .*hooks|Input Tensor .*require")
            targets = resolve_targets(model, images, targets, size)
            explainer, arguments = self._made(model)
            maps = []
            for part in chunks(len(images), size):
                with _seeded(images[part], self.seed) if random else nullcontext():
                    some = images[part].detach()
                    maps.append(explainer.attribute(some, target=targets[part], **arguments))
        result = torch.cat([map.detach() for map in maps])
        if result.shape != images.shape:
            came = f"{self.method.__name__}, whose maps have the shape {tuple(result.shape)}"
            raise InputError("method", came, f"maps of shape {tuple(images.shape)}")
        return result

    def _made(self, model: nn.Module) -> tuple[Any, dict[str, Any]]:
        """Construct Captum's object, and keep the settings that its ``attribute`` takes."""
        others = _parameters(self.method)[1:]
        built: dict[str, Any] = {}
        rest: dict[str, Any] = {}
        for name, value in self.settings.items():
            # Captum asks for tuples, where YAML has lists alone.
            value = tuple(value) if isinstance(value, list) else value
            if name not in others:
                rest[name] = value
            elif isinstance(value, str):
                built[name] = _submodule(model, name, value)
            else:
                built[name] = value
        return self.method(_Adapted(model), **built), rest


class _Adapted(nn.Module):
    """The classifier as Captum can take it: it returns logits, whatever the model returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return classify(self.model, images)


_RANDOM = frozenset(
    {"GradientShap", "KernelShap", "Lime", "LimeBase", "ShapleyValueSampling", "FeaturePermutation"}
)
"""Classes of Captum that draw from the global generators of torch and NumPy."""


@contextmanager
def _seeded(image: Tensor, seed: int) -> Iterator[None]:
    """Within the block, the global generators draw what belongs to an image; then as before."""
    devices = [image.device] if image.device.type == "cuda" else []
    (rng,) = generators(image, seed)
    state = np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(rng.initial_seed())
        np.random.seed(rng.initial_seed() % 2**32)
        try:
            yield
        finally:
            np.random.set_state(state)


def _submodule(model: nn.Module, argument: str, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise InputError(argument, repr(name), "the dotted name of a submodule") from error


def _parameters(function: Any) -> list[str]:
    # Captum's overloads and decorators keep their signature.
    return [name for name in inspect.signature(function).parameters if name != "self"]
