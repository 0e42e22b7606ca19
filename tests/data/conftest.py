from collections.abc import Callable
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep caches in the test's own folder, and the network out of it."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def write_image(tmp_path: Path) -> Callable[..., np.ndarray]:
    """Write a random picture below the test's folder, and return its pixels."""

    def write(name: str, shape: tuple[int, ...] = (6, 6, 3), seed: int = 0) -> np.ndarray:
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return pixels

    return write
