"""Attacks that are crafted on one model and tried on another."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.contracts import Attack, InputError, check_images, check_labels, checked

__all__ = ["Transfer"]


@dataclass(frozen=True)
@checked
class Transfer:
    """Craft with an attack on a source model, whatever model the images are then shown to.

    A model that falls to images crafted on another, but not to the same attack on itself, hides its
    gradients rather than being robust.

    Parameters
    ----------
    attack : Attack
        The attack.
    source : nn.Module
        The model that it is run on, with the same classes as the models it is tried on. Settings
        in YAML name the folder of its run. The ``repr`` shows its class alone, and two transfers
        are equal when their source is the same object.

    Raises
    ------
    InputError
        If ``source`` is no module.

    References
    ----------
    Athalye et al., Obfuscated Gradients Give a False Sense of Security (ICML 2018), section 3.1.

    Examples
    --------
    >>> import torch
    >>> from holdfast.adversarial import FGSM
    >>> source, target = (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)) for _ in range(2))
    >>> attack = Transfer(FGSM(eps=0.1), source)
    >>> attack
    Transfer(attack=FGSM(eps=0.1, chunk=None), source=Sequential)
    >>> images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    >>> crafted = attack(target, images, labels)
    >>> bool((crafted == attack.attack(source, images, labels)).all())
    True
    """

    attack: Attack
    source: nn.Module

    def __post_init__(self) -> None:
        if not isinstance(self.source, nn.Module):
            raise InputError("Transfer.source", type(self.source).__name__, "an nn.Module")

    def __repr__(self) -> str:
        return f"Transfer(attack={self.attack!r}, source={type(self.source).__name__})"

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """Attack the source, on its own device; ``model`` is not asked.

        Returns the crafted images, ``(N, C, H, W)`` in [0, 1], where the images given are.
        """
        check_images(images)
        check_labels(labels, len(images))
        where = next((p.device for p in self.source.parameters()), images.device)
        return self.attack(self.source, images.to(where), labels.to(where)).to(images.device)
