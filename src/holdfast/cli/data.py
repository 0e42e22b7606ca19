"""``holdfast data``: what is done to a data set before anything is trained."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.cli.options import make_parser, split
from holdfast.errors import HoldfastError

__all__ = ["data"]


def data(arguments: list[str]) -> None:
    """Look at a data set, or bring a published one into Holdfast's format."""
    action, *rest = arguments or ["--help"]
    if action in ("-h", "--help"):
        print("usage: holdfast data ACTION …\n")
        for name, perform in _ACTIONS.items():
            print(f"  {name:8} {(perform.__doc__ or '').partition(chr(10))[0]}")
        print("\nholdfast data ACTION --help tells more.")
    elif action in _ACTIONS:
        _ACTIONS[action](rest)
    else:
        known = ", ".join(_ACTIONS)
        raise HoldfastError(f"data has no action {action!r}; there are {known}")


def import_(arguments: list[str]) -> None:
    """Bring a published data set into Holdfast's format."""
    parser = make_parser("data import", import_)
    parser.add_argument("layout", type=str, help="cub-200, gtsrb, imagenette, …")
    parser.add_argument("source", type=str, help="The folder of the unpacked archives.")
    parser.add_argument("destination", type=str, help="The folder for the Parquet files.")
    parser.add_argument("--boxes", type=str, help="For imagenette: ILSVRC's annotations (XML).")
    parser.add_argument("--skip-broken", action="store_true", help="Skip and count bad entries.")
    asked = split(parser, arguments)
    if asked is None:
        return
    options, _ = asked

    from holdfast.data import LAYOUTS, import_layout

    if options.layout not in LAYOUTS:
        raise HoldfastError(f"no layout {options.layout!r}; there are {', '.join(LAYOUTS)}")
    source, destination = options.source, options.destination
    print(import_layout(options.layout, source, destination, options.skip_broken, options.boxes))


def show(arguments: list[str]) -> None:
    """Say what a folder, a file or a name holds: splits, classes in order, counts, sizes, boxes."""
    parser = make_parser("data show", show, "--data.box_format xywh")
    parser.add_argument("path", type=str, help="A folder, a file of Parquet, digits or a hub name.")
    parser.add_argument("--out", type=str, help="A PNG file to draw some images of each class in.")
    asked = split(parser, arguments, groups=("data",))
    if asked is None:
        return
    options, overrides = asked

    from pathlib import Path

    from holdfast.data import ImageData, contact_sheet, describe
    from holdfast.files import whole
    from holdfast.training.recipe import build, overlay, part_of

    if options.out is not None and not options.out.lower().endswith(".png"):
        raise HoldfastError(f"--out is {options.out}; its name has to end in .png")
    settings = part_of(overlay({}, overrides), "data") | {"path": options.path}
    chosen = build(ImageData, settings, "data")
    print(describe(chosen))
    if options.out is not None:
        with whole(Path(options.out)) as unfinished:
            contact_sheet(chosen).save(unfinished, "PNG")
        print(f"\nSome of the images are in {options.out}.")


_ACTIONS: dict[str, Callable[[list[str]], None]] = {"import": import_, "show": show}
