"""Training with the attention-based dropout layer (ADL): look at more than the telling part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from holdfast.contracts import Batch, InputError, checked
from holdfast.models import classify, last_features
from holdfast.objectives.checks import check_share, classification_loss, images_and_labels

__all__ = ["AttentionDropout"]


@dataclass(frozen=True)
@checked
class AttentionDropout:
    """The cross-entropy of a model whose features pass an attention-based dropout layer (ADL).

    With A the channel mean of a layer's features, they are multiplied either by the drop mask,
    which is 0 where ``A ≥ γ max A`` and else 1, or by the importance map ``sigmoid(A)``. A coin
    decides for the whole batch, at each layer anew. The model itself is not changed, and without
    this objective it runs as it is. Layers in eval mode are left alone.

    Parameters
    ----------
    layers : tuple of str
        The dotted names of the layers; by default the one that `holdfast.models.last_features`
        finds. As published, ADL stands behind several of the higher convolutional stages.
    drop_rate : float
        The probability of the drop mask.
    threshold : float
        γ. As published, 0.8 for VGG and 0.9 for ResNet.

    Raises
    ------
    InputError
        When called: if the model has no such layer, or the layer does not run or gives no feature
        maps.

    References
    ----------
    Choe and Shim, Attention-based Dropout Layer for Weakly Supervised Object Localization (CVPR
    2019); a baseline of Attributional Robustness Training (ECCV 2020), table 2.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    >>> batch = {"images": torch.rand(3, 1, 4, 4), "labels": torch.tensor([0, 1, 1])}
    >>> sorted(AttentionDropout(layers=("1",))(model, batch))
    ['loss']
    """

    layers: tuple[str, ...] = ()
    drop_rate: float = 0.75
    threshold: float = 0.9

    def __post_init__(self) -> None:
        check_share(self, "drop_rate", "threshold")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``{"loss"}``."""
        images, labels = images_and_labels(batch)
        layers = self.layers or (last_features(model, images),)
        with _changed(model, layers, self._drop):
            logits = classify(model, images)
        return {"loss": classification_loss(logits, labels)}

    def _drop(self, features: Float[Tensor, "n f y x"]) -> Float[Tensor, "n f y x"]:
        attention = features.mean(1, keepdim=True)
        if torch.rand(()) < self.drop_rate:
            most = attention.amax((2, 3), keepdim=True)
            return features * (attention < self.threshold * most)
        return features * attention.sigmoid()


@contextmanager
def _changed(
    model: nn.Module, layers: tuple[str, ...], change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Within the block, what these layers give in train mode goes through ``change``."""
    ran: set[str] = set()

    def hook(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def replace(module: nn.Module, _: Any, output: Any) -> Any:
            ran.add(name)
            if not isinstance(output, Tensor) or output.ndim != 4:
                came = f"{name!r}, whose output is no such tensor"
                raise InputError("layers", came, "layers that give feature maps (N, F, Y, X)")
            return change(output) if module.training else output

        return replace

    modules = []
    for name in layers:
        try:
            modules.append(model.get_submodule(name))
        except AttributeError as error:
            known = ", ".join(child for child, _ in model.named_children())
            raise InputError("layers", repr(name), f"submodules, in one of {known}") from error
    named = zip(layers, modules, strict=True)
    hooks = [module.register_forward_hook(hook(name)) for name, module in named]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()
    if still := [name for name in layers if name not in ran]:
        raise InputError("layers", f"{still[0]!r}, which does not run", "layers that run")
