"""The commands that are interrupted, and what has to be the same in the end."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TINY = ("--data.limit=60", "--batch_size=20", "--trainer.max_epochs=6", "--quiet")
DRAWS = "{class_path: PGD, init_args: {eps: 0.1, step_size: 1e-5, steps: 60, seed: null}}"
"""An attack that goes on with the draws of the one before it."""
AUDIT = (
    *("--battery=quick", "--eps=0.1", "--data.limit=60", "--quiet"),
    *("--audit.shard=10", "--audit.gallery=4", "--audit.worst=2"),
    *("--audit.attacks.pgd-20.seed=null", f"--audit.attacks.second={DRAWS}"),
)

ONCE, TWICE, FULL = "Ctrl-C", "Ctrl-C twice", "full disk"
SIGNALS = {
    "SIGKILL": [signal.SIGKILL],
    ONCE: [signal.SIGINT],
    TWICE: [signal.SIGINT, signal.SIGINT],
    "SIGTERM": [signal.SIGTERM],
    FULL: [],
}
BY_SIGNAL = tuple(way for way in SIGNALS if way != FULL)
"""Of a command whose results appear by one rename; a disk that is really full comes besides."""


@dataclass(frozen=True)
class Case:
    """A command that is interrupted, and what of its folder has to be equal in the end."""

    arguments: Callable[[Path], tuple[object, ...]]
    results: Callable[[Path], dict[str, bytes]]
    again: Callable[[Path], object] = lambda folder: None  # what the user does before he goes on
    done: Callable[[Path], bool] = lambda folder: False  # so that it would be refused once more
    kills: int = 10
    ways: tuple[str, ...] = tuple(SIGNALS)
    shares: tuple[float, ...] = (0.0, 0.3, 0.7)
    """Room that a disk has, in parts of the results' size."""


@dataclass(frozen=True)
class Given:
    """What commands work on: a trained run, one that is audited, an image, and an archive."""

    trained: Path
    audited: Path
    image: Path
    archive: Path


def cases(given: Given | None) -> dict[str, Case]:
    """Name the commands that go on, or are done once more."""
    held_out = "--data={path: digits, size: 16, limit: 60, validation: 20}"
    return {
        "train, natural": Case(_training("digits/natural"), everything("run", "*"), kills=7),
        "train, ART, with validation": Case(
            _training("digits/art", held_out), everything("run", "*"), kills=7
        ),
        "train, gradients accumulated": Case(
            _training("digits/natural", "--trainer.accumulate_grad_batches=2"),
            everything("run", "*"),
            kills=6,
        ),
        "audit": Case(
            lambda folder: ("audit", given.trained, *AUDIT, "--out", "audited"),
            everything("audited", "**/*"),
        ),
        "roar": Case(
            lambda folder: (
                *("roar", given.trained, "--methods=gradient", "--roar.shares=[0.5]"),
                *("--quiet", "--out", "roar"),
            ),
            everything("roar", "roar.parquet", "roar.png", "*/*/*.safetensors", "*/*/metrics.csv"),
        ),
        "report": Case(
            lambda folder: ("report", given.audited, "--out", "report.html", "--tables", "tables"),
            everything(".", "report.html", "tables/*"),
        ),
        "data import": Case(
            lambda folder: ("data", "import", "tiny-imagenet", given.archive, "data"),
            everything("data", "**/*"),
            done=lambda folder: (folder / "data").exists(),
            ways=BY_SIGNAL,
        ),
    }


def short_cases(given: Given | None) -> dict[str, Case]:
    """Name the commands that are not worth going on with, and are done once more from the start."""
    return {
        "explain": Case(
            lambda folder: ("explain", given.trained, given.image, "--out", "explanation.png"),
            everything(".", "explanation.png"),
        ),
        "data show": Case(
            lambda folder: ("data", "show", "digits", "--data.limit=60", "--out", "sheet.png"),
            everything(".", "sheet.png"),
        ),
        "demo": Case(
            lambda folder: (
                *("demo", "--data.limit=20", "--batch_size=20", "--trainer.max_epochs=1"),
                *("--quiet", "--out", "demo"),
            ),
            everything("demo", "report.html", "*/*.safetensors", "*/audit/*"),
            again=lambda folder: shutil.rmtree(folder / "demo", ignore_errors=True),
            shares=(0.0, 0.6),
        ),
    }


def everything(name: str, *patterns: str) -> Callable[[Path], dict[str, bytes]]:
    """Read all files of these patterns."""

    def read(folder: Path) -> dict[str, bytes]:
        found = {path for pattern in patterns for path in (folder / name).glob(pattern)}
        files = {path for path in found if path.is_file() and not path.name.startswith(".")}
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    return read


def undisturbed(command, case, folder):
    """Do the command without interruption; return its results and how long it takes."""
    folder.mkdir()
    done = command(*case.arguments(folder), cwd=folder, seconds=120)
    assert done.status == 0, done.stderr
    expected = case.results(folder)
    assert expected
    return expected, done.seconds


def _training(recipe: str, *more: str) -> Callable[[Path], tuple[object, ...]]:
    def arguments(folder: Path) -> tuple[object, ...]:
        # Whatever is there already, it has to be asked for by --resume.
        begun = ("checkpoints", "model.safetensors")
        resume = ["--resume"] if any((folder / "run" / name).exists() for name in begun) else []
        return ("train", recipe, *TINY, *more, "--out", "run", *resume)

    return arguments


NAMES, SHORT_NAMES = tuple(cases(None)), tuple(short_cases(None))
