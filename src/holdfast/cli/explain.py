"""``holdfast explain``: which pixels mattered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.cli.methods import METHODS_HELP, methods
from holdfast.cli.model_options import MODEL_HELP, add_model_options, load
from holdfast.cli.options import make_parser, split
from holdfast.errors import HoldfastError
from holdfast.files import whole

__all__ = ["explain"]


def explain(arguments: list[str]) -> None:
    """Draw which pixels of images mattered for their predictions: a row an image."""
    example = "--data.size 256 --model.weights IMAGENET1K_V1"
    parser = make_parser("explain", explain, example)
    parser.add_argument("model", type=str, help=MODEL_HELP)
    parser.add_argument("images", type=str, nargs="+", help="Image files: PNG, JPEG, …")
    add_model_options(parser)
    parser.add_argument(
        "--methods",
        type=str,
        default="gradient,ig,smooth_grad,big",
        help=METHODS_HELP,
    )
    parser.add_argument("--out", type=str, default="explanation.png", help="The file to write.")
    asked = split(parser, arguments, groups=("data", "model"))
    if asked is None:
        return
    options, overrides = asked

    from holdfast import plot

    chosen = methods(options.methods)
    out = Path(options.out)
    if out.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise HoldfastError(f"--out is {out}; its name has to end in .png, .pdf or .svg")
    model = load(options, overrides)
    images = _read_images(model, options.images, overrides)
    figure = plot.explain(model, images, chosen)
    with whole(out) as unfinished:
        figure.savefig(unfinished, dpi=150, format=out.suffix[1:].lower())
    print(f"The explanations are in {out}.")


def _read_images(model: Any, files: list[str], overrides: dict[str, Any]) -> Any:
    """Read image files in the form that the model expects, or the user asks for."""
    from dataclasses import replace

    from holdfast.data import ImageData, as_expected
    from holdfast.training.recipe import build, overlay, part_of

    wanted = build(ImageData, part_of(overlay({}, overrides), "data"), "data")
    expected = getattr(model, "preprocessing", None)
    if expected is None:
        # What says nothing of its images takes as many channels as its first convolution, and
        # all images in the size of the first.
        first = (int(weight.shape[1]) for weight in model.parameters() if weight.ndim == 4)
        wanted = replace(wanted, channels=wanted.channels or next(first, 3))
        if wanted.size is None:
            size = tuple(wanted.read(files[:1]).shape[2:])
            wanted = replace(wanted, size=size, fit=wanted.fit or "squash")
    else:
        wanted = as_expected(wanted, expected)
    return wanted.read(files)
