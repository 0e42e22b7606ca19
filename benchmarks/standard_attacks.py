"""APGD and Square beside the authors' own code: robust accuracy and time, in one run.

    python benchmarks/standard_attacks.py --autoattack PATH [--data DATA --run RUN ...]

``PATH`` is a checkout of the authors' repository, ``fra31/auto-attack``. Without it the package
torchattacks is compared with, which has copies of their code; one of the two is needed here alone.

A small convolutional network is trained on scikit-learn's digits twice, naturally and on PGD's
images. With ``--data``, a folder or file of Parquet or a name on the hub, and one ``--run`` or
more, runs of ``holdfast train`` on it, those are attacked instead. All attacks see the same images
and have the same budget. Each round has another seed and the other order; what is printed is the
mean over rounds, and the ratio of the whole times.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.adversarial import APGD, PGD, Norm, Square, correct
from holdfast.data import ImageData
from holdfast.models import evaluating, mnist_cnn
from holdfast.training import load

NORMS = {"linf": "Linf", "l2": "L2"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--autoattack", help="a checkout of the authors' repository")
    parser.add_argument("--data", help="attack images of this data instead of digits")
    parser.add_argument("--run", action="append", default=[], help="a run on that data")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--linf", type=float, nargs="+", default=[0.1], help="ε in ℓ∞")
    parser.add_argument("--l2", type=float, nargs="+", default=[1.0], help="ε in ℓ2")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, help="CPU threads")
    arguments = parser.parse_args()
    if bool(arguments.data) != bool(arguments.run):
        parser.error("--data and --run belong together")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    reference = authors(arguments.autoattack) if arguments.autoattack else torchattacks_()
    if arguments.data:
        models = {run: load(run).to(device()) for run in arguments.run}
        data = ImageData(arguments.data)
    else:
        data = ImageData("digits", size=16)
        models = {"natural": train(data, None), "trained on PGD": train(data, PGD(0.1, 0.025, 7))}
    test = data.load("test")
    batch = test.batch(range(min(len(test), arguments.images)))
    images, labels = batch["images"].to(device()), batch["labels"].to(device())
    print(f"{len(images)} images, {device()}")
    print("| model | attack | ε | robust, reference | robust, ours | time |")
    print("|:--|:--|--:|--:|--:|--:|")
    for title, model in models.items():
        model.eval().requires_grad_(False)
        print(f"| {title} | none | | | {share(correct(model, images, labels))} | |")
        for norm, radii in (("linf", arguments.linf), ("l2", arguments.l2)):
            for eps in radii:
                compare(title, model, images, labels, norm, eps, reference, arguments)


def compare(
    title: str,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    norm: Norm,
    eps: float,
    reference: Callable[..., Tensor],
    arguments: argparse.Namespace,
) -> None:
    """Print a row for each attack."""
    steps, queries = arguments.steps, arguments.queries
    ours = {
        f"APGD, cross-entropy, {steps} steps": APGD(eps, norm, "ce", steps),
        f"APGD, logit ratio, {steps} steps": APGD(eps, norm, "dlr", steps),
        f"Square, {queries} queries": Square(eps, norm, queries),
    }
    for name, first in ours.items():
        seconds, robust = [0.0, 0.0], [[], []]
        for seed in range(arguments.rounds):
            attack = dataclasses.replace(first, seed=seed)
            pair: list[Callable[[], Tensor]] = [
                lambda attack=attack: reference(model, images, labels, attack),
                lambda attack=attack: attack(model, images, labels),
            ]
            for which in (0, 1) if seed % 2 == 0 else (1, 0):
                spent, attacked = clock(pair[which])
                seconds[which] += spent
                robust[which].append(correct(model, attacked, labels))
        theirs, own = (share(torch.stack(one)) for one in robust)
        numbers = f"{theirs} | {own} | {seconds[1] / seconds[0]:.2f}"
        print(f"| {title} | {name}, {norm} | {eps:g} | {numbers} |", flush=True)


def authors(path: str) -> Callable[..., Tensor]:
    """Run the attacks of a checkout of the authors' repository."""
    sys.path.insert(0, path)
    from autoattack.autopgd_base import APGDAttack
    from autoattack.square import SquareAttack

    def run(model: nn.Module, images: Tensor, labels: Tensor, attack: APGD | Square) -> Tensor:
        common: dict[str, Any] = {
            "norm": NORMS[attack.norm],
            "eps": attack.eps,
            "seed": attack.seed,
            "device": images.device,
        }
        if isinstance(attack, APGD):
            theirs = APGDAttack(model, n_iter=attack.steps, loss=attack.loss, **common)
        else:
            theirs = SquareAttack(model, n_queries=attack.queries, p_init=0.8, **common)
        return theirs.perturb(images, labels)

    return run


def torchattacks_() -> Callable[..., Tensor]:
    """Run the attacks of torchattacks."""
    try:
        import torchattacks
    except ImportError as error:
        needed = "This benchmark compares with the authors' code: give --autoattack a checkout"
        raise SystemExit(f"{needed}, or pip install torchattacks") from error

    def run(model: nn.Module, images: Tensor, labels: Tensor, attack: APGD | Square) -> Tensor:
        common: dict[str, Any] = {
            "norm": NORMS[attack.norm],
            "eps": attack.eps,
            "seed": attack.seed,
        }
        if isinstance(attack, APGD):
            theirs = torchattacks.APGD(model, steps=attack.steps, loss=attack.loss, **common)
        else:
            theirs = torchattacks.Square(model, n_queries=attack.queries, **common)
        return theirs(images, labels)

    return run


def train(data: ImageData, attack: PGD | None) -> nn.Module:
    """Train a small network for a few hundred steps."""
    torch.manual_seed(0)
    model = mnist_cnn(filters=(16, 32), hidden=128, size=16).to(device())
    images = data.load("train")
    adam = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(300):
        batch = images.batch(torch.randint(len(images), (64,)))
        x, y = batch["images"].to(device()), batch["labels"].to(device())
        if attack:
            with evaluating(model):
                x = attack(model, x, y)
        adam.zero_grad()
        F.cross_entropy(model(x), y).backward()
        adam.step()
    return model


def share(robust: Tensor) -> str:
    return f"{100 * robust.double().mean().item():.1f} %"


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def clock(attack: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Time an attack; on CPUs in the time of this process, which no other program delays."""
    now = time.perf_counter if device() == "cuda" else time.process_time
    start = now()
    attacked = attack()
    if attacked.is_cuda:
        torch.cuda.synchronize()
    return now() - start, attacked


if __name__ == "__main__":
    main()
