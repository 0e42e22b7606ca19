"""Nearest decision boundaries: Holdfast's search beside the published pipeline, in one run.

    python benchmarks/boundary.py --mnist PATH --cifar PATH [--cifar-run RUN]

``PATH`` is a folder or file of Parquet, or a name on the hub, as `holdfast.data.ImageData` takes
it. A network is trained briefly on each, or RUN, a run of ``holdfast train``, taken for CIFAR-10;
then all methods search around the same test images that it classifies correctly. The published
pipeline (Wang et al., ICLR 2022, appendix B.2) runs through foolbox, which is needed here alone:
PGD in ℓ2 at each of a list of ε, then Carlini-Wagner, and of all points the nearest. Beside it are
the rows of B.2 by `BoundaryPipeline`, which has Auto-PGD as well, and foolbox's own DDN.

The pipeline's step sizes are the published ones where there are any, for CIFAR-10; ``--generous``
takes longer ones there, with which it comes a little nearer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.adversarial import BoundaryPipeline, BoundarySearch
from holdfast.data import ImageData
from holdfast.models import cifar_resnet10, mnist_cnn
from holdfast.training import load

try:
    import foolbox
except ImportError as error:
    raise SystemExit("This benchmark compares with foolbox: pip install foolbox") from error


CIFAR = BoundaryPipeline()
GENEROUS = replace(CIFAR, step_size=None, cw_step_size=1e-2)
# Nothing is published for MNIST, whose boundaries are farther off: as many ε, so as much work.
MNIST = replace(GENEROUS, epsilons=tuple(4 * eps for eps in CIFAR.epsilons), apgd_eps=1.2)
ROWS = {"PGDs": ("pgd",), "+ CW": ("pgd", "cw"), "+ AutoPGD": ("pgd", "cw", "apgd")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", help="where MNIST is")
    parser.add_argument("--cifar", help="where CIFAR-10 is")
    parser.add_argument("--cifar-run", help="a model that was trained on it, instead of a new one")
    parser.add_argument("--images", type=int, default=64, help="test images of each")
    parser.add_argument("--train", type=int, help="train on at most so many images")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--generous", action="store_true", help="longer steps on CIFAR-10")
    parser.add_argument("--threads", type=int, help="CPU threads")
    arguments = parser.parse_args()
    if not (arguments.mnist or arguments.cifar):
        parser.error("give --mnist or --cifar, or both")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.mnist:
        model = train(mnist_cnn, arguments.mnist, arguments)
        compare("MNIST CNN", model, arguments.mnist, MNIST, arguments.images)
    if arguments.cifar:
        settings = GENEROUS if arguments.generous else CIFAR
        if arguments.cifar_run:
            title, model = arguments.cifar_run, load(arguments.cifar_run).to(device())
        else:
            title, model = "CIFAR ResNet-10", train(cifar_resnet10, arguments.cifar, arguments)
        compare(title, model, arguments.cifar, settings, arguments.images)


def compare(
    title: str, model: nn.Module, path: str, settings: BoundaryPipeline, count: int
) -> None:
    model.eval().requires_grad_(False)  # No method here needs gradients of weights.
    images, labels, right = correct(model, ImageData(path), count)

    def by_holdfast(search: BoundaryPipeline) -> Callable[[], Tensor]:
        return lambda: search(model, images, labels).points

    methods: dict[str, Callable[[], Tensor]] = {
        "published, by foolbox": lambda: pipeline(model, images, labels, settings),
        **{name: by_holdfast(replace(settings, attacks=row)) for name, row in ROWS.items()},
        f"foolbox DDN, {settings.steps} steps": lambda: ddn(model, images, labels, settings.steps),
        "Holdfast": lambda: BoundarySearch()(model, images, labels).points,
        "Holdfast, thorough": lambda: THOROUGH(model, images, labels).points,
    }
    print(f"\n{title}: {len(images)} images that it classifies correctly, as {right:.1%} of all")
    print(f"{'':24} success  mean ℓ2  ratio  median ratio  time, share")
    base = None
    for name, search in methods.items():
        search_time, points = clock(search)
        length = (points - images).flatten(1).norm(dim=1)
        with torch.no_grad():
            changed = model(points).argmax(1) != labels
        # Lengths are compared where both succeed: for the pipeline, its nearer images if not all.
        base = base or (search_time, changed, length)
        both = base[1] & changed
        compared, published = length[both], base[2][both]
        print(
            f"{name:24} {changed.float().mean():7.1%}  {compared.mean():7.4f}"
            f"  {compared.mean() / published.mean():5.3f}  {(compared / published).median():12.3f}"
            f"  {search_time / base[0]:11.4f}",
            flush=True,
        )


THOROUGH = BoundarySearch(steps=40, scout_steps=20, restarts=9, restart_steps=10)


def pipeline(
    model: nn.Module, images: Tensor, labels: Tensor, settings: BoundaryPipeline
) -> Tensor:
    """Return the nearest of the points that PGD at each ε and Carlini-Wagner find."""
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
    attack = foolbox.attacks.L2PGD(
        rel_stepsize=2 / settings.steps, abs_stepsize=settings.step_size, steps=settings.steps
    )
    tried = [attack(wrapped, images, labels, epsilons=eps)[1] for eps in settings.epsilons]
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=settings.cw_searches,
        steps=settings.steps,
        stepsize=settings.cw_step_size,
    )
    tried.append(attack(wrapped, images, labels, epsilons=None)[1])

    nearest = images.clone()
    best = torch.full_like(labels, torch.inf, dtype=images.dtype)
    for points in tried:
        length = (points - images).flatten(1).norm(dim=1)
        with torch.no_grad():
            nearer = (model(points).argmax(1) != labels) & (length < best)
        nearest[nearer], best[nearer] = points[nearer], length[nearer]
    return nearest


def ddn(model: nn.Module, images: Tensor, labels: Tensor, steps: int) -> Tensor:
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
    return foolbox.attacks.DDNAttack(steps=steps)(wrapped, images, labels, epsilons=None)[1]


def train(build: Callable[[], nn.Module], path: str, arguments: argparse.Namespace) -> nn.Module:
    """Train a new network with Adam."""
    torch.manual_seed(0)
    model = build().to(device())
    images = ImageData(path, limit=arguments.train).load("train")
    epochs = arguments.epochs
    steps = epochs * (len(images) // 64)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        if step % (steps // epochs) == 0:
            order = torch.randperm(len(images))
        place = 64 * (step % (steps // epochs))
        batch = images.batch(order[place : place + 64])
        logits = model(batch["images"].to(device()))
        optimizer.zero_grad()
        F.cross_entropy(logits, batch["labels"].to(device())).backward()
        optimizer.step()
        schedule.step()
    return model


def correct(model: nn.Module, data: ImageData, count: int) -> tuple[Tensor, Tensor, float]:
    """Return the first ``count`` test images that the model classifies correctly, and its accuracy.

    The accuracy is that on the images that were looked at.
    """
    test = data.load("test")
    batch = test.batch(range(min(len(test), max(1000, 8 * count))))
    images, labels = batch["images"].to(device()), batch["labels"].to(device())
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for part in images.split(256)]) == labels
    return images[right][:count], labels[right][:count], float(right.float().mean())


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def clock(search: Callable[[], Tensor]) -> tuple[float, Tensor]:
    torch.manual_seed(0)
    start = time.perf_counter()
    points = search()
    if points.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start, points


if __name__ == "__main__":
    main()
