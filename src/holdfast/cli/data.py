"""``holdfast data``: what is done to a data set before anything is trained."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.cli.options import make_parser, split
from holdfast.errors import HoldfastError

__all__ = ["data"]


def data(arguments: list[str]) -> None:
    """Bring a published data set into Holdfast's format: data import LAYOUT SOURCE DESTINATION."""
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
        raise HoldfastError(f"data has no action {action!r}; there is {known}")


def import_(arguments: list[str]) -> None:
    """Bring a published data set into Holdfast's format."""
    parser = make_parser("data import", import_)
    parser.add_argument("layout", type=str, help="cub-200, tiny-imagenet, gtsrb, flower-17, …")
    parser.add_argument("source", type=str, help="The folder of the unpacked archives.")
    parser.add_argument("destination", type=str, help="The folder for the Parquet files.")
    parser.add_argument("--skip-broken", action="store_true", help="Skip and count bad entries.")
    asked = split(parser, arguments)
    if asked is None:
        return
    options, _ = asked

    from holdfast.data import LAYOUTS, import_layout

    if options.layout not in LAYOUTS:
        raise HoldfastError(f"no layout {options.layout!r}; there are {', '.join(LAYOUTS)}")
    print(import_layout(options.layout, options.source, options.destination, options.skip_broken))


_ACTIONS: dict[str, Callable[[list[str]], None]] = {"import": import_}
