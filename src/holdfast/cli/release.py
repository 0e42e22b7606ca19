"""``holdfast release``: trained models made small, for others to load by name."""

from __future__ import annotations

from holdfast.cli.options import make_parser, split

__all__ = ["release"]


def release(arguments: list[str]) -> None:
    """Write a trained model into a folder of releases, in half precision, with its digest."""
    parser = make_parser("release", release, "--data.limit 500")
    parser.add_argument("model", type=str, help="The folder of a trained run.")
    parser.add_argument("name", type=str, help="What zoo:NAME will name: mnist/art.")
    parser.add_argument("--to", type=str, default="zoo", help="The folder of releases.")
    parser.add_argument("--about", type=str, default="", help="A line about the model.")
    parser.add_argument(
        "--data", type=str, help="What to compare predictions on. (default: the run's own data)"
    )
    parser.add_argument("--replace", action="store_true", help="Replace a release of this name.")
    asked = split(parser, arguments, groups=("data",))
    if asked is None:
        return
    options, overrides = asked

    from holdfast import zoo
    from holdfast.audit.assignment import assign
    from holdfast.training import release as write

    zoo.check_label(options.name)
    job = assign(options.model, data=options.data, overrides={"data.limit": 1000, **overrides})
    released = write(
        job.load_model(),
        job.load_data(),
        options.name,
        options.to,
        about=options.about,
        replaced=options.replace,
    )
    print(
        f"{released.file}: {released.file.stat().st_size / 1e6:.2f} MB, SHA-256 {released.sha256}; "
        f"{released.agree:,} of {released.images:,} images are predicted as before."
    )
