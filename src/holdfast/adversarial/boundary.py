"""The search for the nearest decision boundary."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from holdfast.adversarial.halfspace import nearest_in_halfspace
from holdfast.adversarial.searching import Boundary, searched
from holdfast.adversarial.slope import directionless, slope
from holdfast.contracts import (
    check_labels,
    check_positive,
    checked,
    generators,
)
from holdfast.models import classify

__all__ = ["BoundarySearch"]


@dataclass(frozen=True)
@checked
class BoundarySearch:
    """Find the nearest image, in ℓ2 and within [0, 1], to which the model gives another class.

    1. *Scout* with a few coarse steps of decoupled direction and norm (DDN): go along the
       normalized gradient of the margin, on a sphere that shrinks when the class has changed and
       grows when it has not.
    2. *Restart* with an aim at each of the likeliest other classes: jump to the nearest point of
       [0, 1] where the margin to that class, taken as linear, changes sign; repeat from there. The
       first restart is from the image, the others are from random points as far from it as what
       the scout found. The nearest boundary need not lie where the gradient points.
    3. *Polish* the nearest point so far with fine steps of DDN.
    4. *Project* it once more on the boundary's tangent plane, and *bisect* the way to it.

    A step costs one gradient. Where all this finds no other class, black, white and random images
    are tried, and what they find is bisected and polished.

    Parameters
    ----------
    steps : int
        Number of polishing steps.
    scout_steps : int
        Number of scouting steps.
    restarts : int
        Number of restarts, each with an aim at another class, the one of the highest logit first;
        where there are more restarts than classes, in turn.
    restart_steps : int
        Number of steps of each restart.
    seed : int
        What is drawn for an image depends on this and on the image's content alone.
    chunk : int, optional
        How many images to take at a time; by default chosen from their size.

    Notes
    -----
    Every point returned has another class than its image, by a margin above rounding error; the
    point 0.01 % nearer on the same line has not, or only within rounding. Points of an image do not
    depend on its batch, up to rounding.

    References
    ----------
    Wang et al., Robust Models Are More Interpretable Because Attributions Look Normal (ICLR 2022),
    section 4. Rony et al., Decoupling Direction and Norm for Efficient Gradient-Based L2
    Adversarial Attacks and Defenses (CVPR 2019). Croce and Hein, Minimally Distorted Adversarial
    Examples with a Fast Adaptive Boundary Attack (ICML 2020).

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> model[1].weight.data = torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    >>> model[1].bias.data = torch.tensor([-3.0, 0.0])
    >>> boundary = BoundarySearch()(model, torch.full((1, 1, 2, 2), 0.5))
    >>> boundary.distances, boundary.labels
    (tensor([0.1000]), tensor([1]))
    """

    steps: int = 20
    scout_steps: int = 10
    restarts: int = 3
    restart_steps: int = 5
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "steps", "scout_steps", "restarts", "restart_steps", zero=True)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Integer[Tensor, " n"] | None = None,
    ) -> Boundary:
        """Search around each image for a class other than its label; the model runs in eval mode.

        Without labels, for a class other than the predicted one. An image that the model does not
        assign to its label comes back as its own point, found, at distance 0.
        """
        copies = max(1, self.restarts)
        return searched(self, self._search, model, images, labels, chunk=self.chunk, copies=copies)

    def _search(
        self, model: nn.Module, images: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with torch.no_grad():
            logits = classify(model, images)
        predicted = logits.argmax(1)
        if labels is None:
            labels = predicted
        check_labels(labels, len(images), logits.shape[1])
        labels = labels.to(images.device, torch.long)

        points = images.clone()
        distances = torch.where(predicted == labels, math.inf, torch.zeros_like(logits[:, 0]))
        distances, classes = distances.to(images.dtype), predicted.clone()
        stuck = torch.zeros_like(distances)
        here = predicted == labels
        if here.any():
            trail = _Trail(model, images[here], labels[here])
            self._follow(trail, logits[here])
            points[here], distances[here] = trail.points, trail.distances
            classes[here] = torch.where(trail.found, trail.classes, predicted[here])
            stuck[here] = trail.stuck / max(1, trail.probes)
        return points, distances, classes, stuck

    def _follow(self, trail: _Trail, logits: Tensor) -> None:
        dice = generators(trail.images, self.seed)
        _descend(trail, self.scout_steps, shrink=0.1)
        if self.restarts and self.restart_steps:
            aimed, targets = self._restart(trail, logits, dice)
            _jump(aimed, self.restart_steps, overshoot=1.15, damp=0.1, targets=targets)
            _bisect(aimed, _COARSE)
            trail.adopt(aimed)
        lost = ~trail.found
        if lost.any():
            far = _Trail(trail.model, trail.images[lost], trail.labels[lost])
            for images in _far_images(
                far.images, [dice[n] for n in lost.nonzero().flatten().tolist()]
            ):
                one = far.repeat(1)
                one.look(images)
                _bisect(one, _COARSE)
                far.adopt(one)
            _descend(far, 2 * self.scout_steps, shrink=0.2)
            trail.put(lost, far)
        _descend(trail, self.steps, shrink=0.02)
        _jump(trail, 2, overshoot=1 + _FINE / 4, damp=1.0)
        _bisect(trail, _FINE)

    def _restart(
        self, trail: _Trail, logits: Tensor, dice: list[torch.Generator]
    ) -> tuple[_Trail, Tensor]:
        """Begin the restarts, and choose the class that each of them aims at."""
        others = logits.scatter(1, trail.labels[:, None], -math.inf).nan_to_num(-math.inf)
        classes = others.topk(min(self.restarts, logits.shape[1] - 1), dim=1).indices
        turns = torch.arange(self.restarts, device=logits.device) % classes.shape[1]
        aimed = trail.repeat(self.restarts)
        drawn = torch.zeros(len(dice), self.restarts, *trail.images.shape[1:], dtype=torch.float32)
        for own, die in zip(drawn, dice, strict=True):
            own[1:].normal_(generator=die)
        noise = drawn.to(trail.images).flatten(0, 1)
        radius = trail.distances.nan_to_num(posinf=0).repeat_interleave(self.restarts)
        noise = noise * _wide(radius / _length(noise).clamp_min(_TINY))
        aimed.points = (aimed.images + noise).clamp(0, 1)
        return aimed, classes[:, turns].flatten()


def _far_images(images: Tensor, dice: list[torch.Generator]) -> Iterator[Tensor]:
    """Images far from all of these, to look for any other class at all."""
    yield torch.zeros_like(images)
    yield torch.ones_like(images)
    for _ in range(8):
        yield torch.stack(
            [torch.rand(images.shape[1:], generator=die, dtype=torch.float32) for die in dice]
        ).to(images)


class _Trail:
    """A search in progress: the nearest point of another class that was seen for each image."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        self.model, self.images, self.labels = model, images, labels
        self.points = images.clone()
        self.distances = torch.full_like(images[:, 0, 0, 0], math.inf)
        self.classes = labels.clone()
        self.stuck, self.probes = torch.zeros_like(self.distances), 0

    @property
    def found(self) -> Tensor:
        return self.distances.isfinite()

    def look(self, x: Tensor) -> Tensor:
        """Take note of points of another class, and return whether they are one."""
        with torch.no_grad():
            return self._note(x, classify(self.model, x))

    def probe(self, x: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Look, and return the margin to the target (or the nearest class) and its gradient."""
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            logits = classify(self.model, x)
            own, other = _pair(logits, self.labels, targets)
            margins = own - other
            gradients = slope(margins, x)
        self.stuck += directionless(gradients)
        self.probes += 1
        self._note(x.detach(), logits.detach())
        return margins.detach().nan_to_num(0, 0, 0), gradients.nan_to_num(0, 0, 0)

    def _note(self, x: Tensor, logits: Tensor) -> Tensor:
        own, other = _pair(logits, self.labels)
        # Rounding differs with the batch that an image is in; what is noted must hold in all.
        rounding = 16 * torch.finfo(logits.dtype).eps * logits.abs().amax(1)
        beyond = own - other < -rounding
        distances = _length(x - self.images)
        nearer = beyond & (distances < self.distances)
        self.points = torch.where(_wide(nearer), x, self.points)
        self.distances = torch.where(nearer, distances, self.distances)
        self.classes = torch.where(nearer, logits.argmax(1), self.classes)
        return beyond

    def repeat(self, count: int) -> _Trail:
        """Begin ``count`` trails for each image, side by side."""
        images = self.images.repeat_interleave(count, 0)
        return _Trail(self.model, images, self.labels.repeat_interleave(count))

    def adopt(self, others: _Trail) -> None:
        """Take over the best of the trails that `repeat` began, where it is nearer."""
        n = len(self.images)
        best = others.distances.view(n, -1).argmin(1)
        best += torch.arange(n, device=best.device) * (len(others.images) // n)
        nearer = others.distances[best] < self.distances
        self.points = torch.where(_wide(nearer), others.points[best], self.points)
        self.distances = torch.where(nearer, others.distances[best], self.distances)
        self.classes = torch.where(nearer, others.classes[best], self.classes)

    def put(self, where: Tensor, other: _Trail) -> None:
        """Take over the trail of some of the images."""
        self.points[where], self.distances[where] = other.points, other.distances
        self.classes[where] = other.classes


def _descend(trail: _Trail, steps: int, shrink: float) -> None:
    """Decoupled direction and norm, from the nearest point seen, or from the image.

    The direction turns with the normalized gradient, less each step. The radius shrinks by the
    share ``shrink`` beyond the boundary and grows by it before, less each step. From the image it
    starts at the distance to the linear boundary, and grows faster until the class first changes.
    """
    images = trail.images
    widest = math.sqrt(images[0].numel())
    found = trail.found
    delta = trail.points - images
    radius = trail.distances.clamp_max(widest)
    for step in range(steps):
        margins, gradients = trail.probe(images + delta)
        steepness = _length(gradients).clamp_min(_TINY)
        if step == 0:
            radius = torch.where(found, radius, (margins / steepness).clamp(0, widest))
        change = shrink * (0.1 + 0.9 * _cooling(step, steps))
        crossed = margins < 0
        found = found | crossed
        wider = torch.full_like(radius, 1.3 if step else 1.05)
        grow = torch.where(found, 1 + change, wider)
        radius = (radius * torch.where(crossed, 1 - change, grow)).clamp_max(widest)
        turn = 0.02 + 0.98 * _cooling(step, steps)
        delta = delta - _wide(turn * radius / steepness) * gradients
        delta = delta * _wide(radius / _length(delta).clamp_min(_TINY))
        delta = (images + delta).clamp(0, 1) - images
    if steps:
        trail.look(images + delta)


def _jump(
    trail: _Trail, steps: int, overshoot: float, damp: float, targets: Tensor | None = None
) -> None:
    """Take the margin as linear and go where it changes sign nearest to the image; repeat.

    Goes ``overshoot`` times as far as the linear boundary; of the way from the point before, the
    whole in the first step, falling to the share ``damp``.
    """
    images, x = trail.images, trail.points
    for step in range(steps):
        margins, gradients = trail.probe(x, targets)
        descents = margins + (gradients * (images - x)).flatten(1).sum(1)
        nearest = nearest_in_halfspace(images, gradients, descents)
        goal = (images + overshoot * (nearest - images)).clamp(0, 1)
        x = x + (damp + (1 - damp) * _cooling(step, steps)) * (goal - x)
    trail.look(x)


def _bisect(trail: _Trail, tolerance: float) -> None:
    """Move each point back along the line to its image until just beyond the boundary.

    ``tolerance`` is the width of the bracket that remains, relative to the distance.
    """
    images, way = trail.images, trail.points - trail.images
    high = torch.ones_like(trail.distances)
    # Most points are already close: one look tells whether a narrow bracket holds the boundary.
    low = torch.full_like(high, 1 - 32 * tolerance)
    active = trail.found
    first = True
    while active.any():
        some = _Trail(trail.model, images[active], trail.labels[active])
        middle = low if first else (low + high) / 2
        beyond = torch.zeros_like(active)
        beyond[active] = some.look((images + _wide(middle) * way)[active])
        high = torch.where(beyond, middle, high)
        low = torch.where(beyond, low, middle)
        if first:
            low = torch.where(beyond, 0, low)
        first = False
        active = active & (high - low > tolerance * high)
    moved = trail.found & (high < 1)
    if moved.any():
        before = trail.points
        trail.points = torch.where(_wide(moved), (images + _wide(high) * way).clamp(0, 1), before)
        trail.distances = torch.where(moved, _length(trail.points - images), trail.distances)
        with torch.no_grad():
            classes = classify(trail.model, trail.points).argmax(1)
        trail.classes = torch.where(moved, classes, trail.classes)


def _pair(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the logit of the label, and that of the target or of the highest other class."""
    own = logits.gather(1, labels[:, None])[:, 0]
    if targets is not None:
        return own, logits.gather(1, targets[:, None])[:, 0]
    return own, logits.scatter(1, labels[:, None], -math.inf).amax(1)


def _cooling(step: int, steps: int) -> float:
    """Fall from 1 to 0 along a cosine."""
    return (1 + math.cos(math.pi * step / steps)) / 2


def _length(delta: Tensor) -> Tensor:
    return delta.flatten(1).norm(dim=1)


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]


_TINY = 1e-12
_COARSE, _FINE = 5e-3, 1e-4
"""How closely points are bisected: to choose among them, and to return them."""
