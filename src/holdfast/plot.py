"""Images and their attribution maps on matplotlib axes.

Nothing here touches matplotlib's global state: functions draw on the axes that they are given, or
return a ``Figure`` to be saved; at the end of a notebook's cell it is shown.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from holdfast.attributions import resolve_targets
from holdfast.contracts import (
    Attribution,
    InputError,
    check_images,
    check_labels,
    chunks,
    default_chunk,
)
from holdfast.models import classify, evaluating

__all__ = [
    "NotebookFigure",
    "explain",
    "grid",
    "heat_map",
    "overlay",
    "picture",
    "show_image",
    "show_map",
]

INK, QUIET = "#1c2326", "#6b7478"
# An odd number of steps, so that one of them is zero and exactly white.
DIVERGING = LinearSegmentedColormap.from_list(
    "holdfast", ["#053061", "#2f79b5", "#a9cfe4", "#ffffff", "#f6b396", "#ca4842", "#67001f"], N=255
)


def explain(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    methods: Mapping[str, Attribution],
    targets: Integer[Tensor, " n"] | None = None,
    *,
    classes: Sequence[str] | None = None,
    blur: float | None = None,
) -> Figure:
    """Explain images by several methods: a row for each image, a column for each method.

    Beside each picture stand the prediction and its confidence (softmax probability).

    Parameters
    ----------
    model : nn.Module
        The classifier.
    images : Tensor
        The images, ``(N, C, H, W)`` in [0, 1].
    methods : mapping of str to Attribution
        What to draw, by the title of its column; `holdfast.attributions.METHODS` has short names.
    targets : Tensor, optional
        The class to explain for each image, ``(N,)``; by default the prediction.
    classes : sequence of str, optional
        The names of the classes; by default their numbers, or what the model itself knows as
        ``model.classes``.
    blur : float, optional
        See `show_map`.

    Warns
    -----
    UserWarning
        If a map has no difference between pixels, as where the gradient is zero.

    Raises
    ------
    InputError
        If there is no method, or fewer names than classes.

    Examples
    --------
    >>> from holdfast.attributions import METHODS
    >>> from holdfast.models import mnist_cnn
    >>> chosen = {name: METHODS[name] for name in ("gradient", "grad_cam")}
    >>> len(explain(mnist_cnn(size=16), torch.rand(2, 1, 16, 16), chosen).axes)
    6
    """
    check_images(images)
    with evaluating(model), torch.no_grad():
        parts = chunks(len(images), default_chunk(images))
        probabilities = torch.cat([classify(model, images[part]).softmax(1) for part in parts])
    known = getattr(model, "classes", None) if classes is None else classes
    names = [str(number) for number in range(probabilities.shape[1])] if known is None else known
    if len(names) < probabilities.shape[1]:
        expected = f"{probabilities.shape[1]} names, one for each class"
        raise InputError("classes", len(names), expected)
    if targets is not None:
        check_labels(targets, len(images), probabilities.shape[1], "targets")
    confidence, predicted = probabilities.max(1)
    explained = resolve_targets(model, images, predicted if targets is None else targets)
    maps = {name: method(model, images, explained) for name, method in methods.items()}
    for name, drawn in maps.items():
        blank = int((drawn == drawn[:, :1, :1, :1]).flatten(1).all(1).sum())
        if blank:
            warnings.warn(
                f"{name} gives {blank} of {len(images)} images a map without any difference: it "
                "explains nothing there",
                stacklevel=2,
            )
    captions = [
        f"{names[label]}\n{_percent(share)}"
        for label, share in zip(predicted.tolist(), confidence.tolist(), strict=True)
    ]
    return grid(images, maps, captions, blur=blur)


def grid(
    images: Float[Tensor, "n c h w"],
    maps: Mapping[str, Float[Tensor, "n d h w"]],
    captions: Sequence[str] | None = None,
    *,
    blur: float | None = None,
) -> Figure:
    """Draw images and their maps: a row for each image, a column for each method.

    Parameters
    ----------
    images : Tensor
        The images, ``(N, C, H, W)`` in [0, 1].
    maps : mapping of str to Tensor
        The maps of each method, ``(N, C, H, W)`` (or of one channel), by the title of its column.
    captions : sequence of str, optional
        What stands beside each picture.
    blur : float, optional
        See `show_map`.

    Raises
    ------
    InputError
        If there are no maps, or not one for each image, or captions are not as many as the images.

    Examples
    --------
    >>> figure = grid(torch.rand(2, 3, 8, 8), {"gradient": torch.randn(2, 3, 8, 8)}, ["cat", "dog"])
    >>> [axes.get_title() for axes in figure.axes[:2]]
    ['image', 'gradient']
    """
    if not maps:
        raise InputError("maps", "none", "the maps of at least one method")
    for name, values in maps.items():
        if values.shape[:1] + values.shape[2:] != images.shape[:1] + images.shape[2:]:
            expected = f"shape {tuple(images.shape)}, that of images"
            raise InputError(f"maps[{name!r}]", f"shape {tuple(values.shape)}", expected)
    if captions is not None and len(captions) != len(images):
        raise InputError("captions", len(captions), f"{len(images)}, one for each image")
    height = 1.5 * images.shape[2] / images.shape[3]
    size = 0.5 + 1.5 * (1 + len(maps)), 0.3 + (0.08 + height) * len(images)
    figure = NotebookFigure(figsize=size, layout="constrained")
    rows = figure.subplots(len(images), 1 + len(maps), squeeze=False)
    for axes, title in zip(rows[0], ["image", *maps], strict=True):
        title = textwrap.fill(title.replace("_", " "), 16)
        axes.set_title(title, fontsize=8, color=QUIET, parse_math=False)
    for n, row in enumerate(rows):
        show_image(images[n], row[0])
        if captions is not None:
            row[0].set_ylabel(captions[n], fontsize=8, color=INK, parse_math=False)
        for axes, values in zip(row[1:], maps.values(), strict=True):
            show_map(values[n], axes, images[n], blur=blur)
    return figure


class NotebookFigure(Figure):
    """A figure that notebooks show by themselves, whether pyplot is loaded or not.

    Examples
    --------
    >>> NotebookFigure(figsize=(1, 1))._repr_png_()[1:4]
    b'PNG'
    """

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png", dpi=110)
        return picture.getvalue()


def show_image(
    image: Float[Tensor, "c h w"] | Float[np.ndarray, "c h w"],
    axes: Axes,
) -> None:
    """Draw an image of one, three or any number of channels in [0, 1].

    Examples
    --------
    >>> show_image(torch.rand(1, 8, 8), Figure().add_subplot())
    """
    _draw(picture(_array(image)), axes)


def show_map(
    attribution: Float[Tensor, "c h w"] | Float[np.ndarray, "c h w"],
    axes: Axes,
    image: Float[Tensor, "d h w"] | Float[np.ndarray, "d h w"] | None = None,
    *,
    blur: float | None = None,
) -> None:
    """Draw a signed map: positive red, negative blue, over the image in grey if it is given.

    Channels are summed, blurred, and divided by the largest absolute value.

    Parameters
    ----------
    attribution : Tensor or ndarray
        The map, ``(C, H, W)``.
    axes : Axes
        Where to draw.
    image : Tensor or ndarray, optional
        The image ``(C, H, W)`` in [0, 1] to lay the map over.
    blur : float, optional
        Standard deviation of a Gaussian blur in pixels; 0.0 for none. By default 10 pixels on an
        image of 224, and in proportion on others.

    References
    ----------
    Robust Models Are More Interpretable Because Attributions Look Normal (ICLR 2022), appendix.

    Examples
    --------
    >>> show_map(torch.randn(3, 8, 8), Figure().add_subplot(), torch.rand(3, 8, 8))
    """
    values = _array(attribution)
    sigma = max(values.shape[1:]) * 10 / 224 if blur is None else blur
    if image is None:
        colours = heat_map(values, blur=sigma, percentile=100.0)
    else:
        colours = overlay(values, _array(image), blur=sigma)
    _draw(colours, axes)


def overlay(
    attribution: Float[np.ndarray, "c h w"],
    image: Float[np.ndarray, "d h w"],
    *,
    blur: float = 0.0,
) -> Float[np.ndarray, "h w 3"]:
    """Lay a signed map over the image in grey: the stronger a pixel, the less of the image is seen.

    Parameters
    ----------
    attribution : ndarray
        The map, ``(C, H, W)``; the scale ends at its largest absolute value.
    image : ndarray
        The image in [0, 1], of any number of channels.
    blur : float
        Standard deviation of a Gaussian blur of the map, in pixels.

    Returns
    -------
    ndarray
        Colours in [0, 1], ``(H, W, 3)``.

    Examples
    --------
    >>> overlay(np.zeros((3, 1, 1)), np.ones((3, 1, 1))).tolist()
    [[[1.0, 1.0, 1.0]]]
    """
    grey = np.clip(image.astype(np.float64).mean(axis=0), 0, 1)[..., None]
    values = _scaled(attribution, blur, 100.0)
    strength = np.abs(values)[..., None]
    # Light grey, on which both colours are seen.
    return (0.5 + 0.5 * grey) * (1 - strength) + _coloured(values) * strength


def heat_map(
    attribution: Float[np.ndarray, "c h w"], *, blur: float = 0.0, percentile: float = 99.0
) -> Float[np.ndarray, "h w 3"]:
    """Colour a signed map: its channels summed, zero white, positive red, negative blue.

    Parameters
    ----------
    attribution : ndarray
        The map, ``(C, H, W)``.
    blur : float
        Standard deviation of a Gaussian blur, in pixels.
    percentile : float
        The scale is symmetric and ends at this percentile of the absolute values; below 100, a few
        extreme pixels do not hide the rest.

    Returns
    -------
    ndarray
        Colours in [0, 1], ``(H, W, 3)``.

    Examples
    --------
    >>> heat_map(np.zeros((3, 1, 2)))[0, 0].tolist()
    [1.0, 1.0, 1.0]
    """
    return _coloured(_scaled(attribution, blur, percentile))


def picture(image: Float[np.ndarray, "c h w"]) -> Float[np.ndarray, "h w 3"]:
    """Bring an image of one, three or any number of channels to colours in [0, 1].

    Examples
    --------
    >>> picture(np.full((1, 1, 1), 0.5)).tolist()
    [[[0.5, 0.5, 0.5]]]
    """
    coloured = image if len(image) == 3 else image.mean(axis=0, keepdims=True).repeat(3, axis=0)
    return np.clip(coloured.astype(np.float64).transpose(1, 2, 0), 0, 1)


def _scaled(attribution: np.ndarray, blur: float, percentile: float) -> np.ndarray:
    """Sum the channels, blur, and scale to [-1, 1]."""
    summed = gaussian_filter(attribution.astype(np.float64).sum(axis=0), blur)
    size = np.abs(summed)
    # A map that is zero nearly everywhere has a percentile of 0: scale it by its peak.
    scale = np.percentile(size, percentile) or size.max() or 1.0
    return np.clip(summed / scale, -1, 1)


def _coloured(values: np.ndarray) -> np.ndarray:
    return np.asarray(DIVERGING(0.5 + 0.5 * values))[..., :3]


def _draw(colours: np.ndarray, axes: Axes) -> None:
    axes.imshow(colours, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=QUIET, alpha=0.3, linewidth=0.75)


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
