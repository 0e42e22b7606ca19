"""A study on a few digits that trains and audits in seconds."""

import copy

import pytest

from holdfast import plain_yaml

AUDIT = {
    "attacks": {
        "pgd": {"class_path": "PGD", "init_args": {"eps": 0.1, "step_size": 0.05, "steps": 2}}
    },
    "manipulations": {
        "top_k/gradient": {
            "class_path": "TopK",
            "init_args": {
                "attribution": {"class_path": "Gradient"},
                "k": 8,
                "eps": 0.1,
                "step_size": 0.05,
                "steps": 2,
            },
        }
    },
    "checks": {},
    "k": 8,
    "explained": 20,
    "gallery": 1,
    "worst": 0,
    "shard": 60,
}
FEW = {
    "trainer.max_epochs": 4,
    "data.limit": 100,
    "model.options.hidden": [16],
    "optimizer.lr": 0.01,
    "batch_size": 10,
}


@pytest.fixture
def settings(shared_settings):
    """The plain settings of a study of two rows, whose published order is made up."""
    return copy.deepcopy(shared_settings)


@pytest.fixture(scope="session")
def shared_settings():
    """The same, not to be changed."""
    return {
        "title": "Two methods on a few digits",
        "source": "nowhere",
        "audit": AUDIT,
        "columns": {
            "acc.": {"check": "clean", "measure": "correct"},
            "τ": {
                "check": "top_k/gradient",
                "measure": "kendall_tau",
                "statistic": "median",
                "unit": "number",
            },
        },
        "rows": {
            "natural": {"recipe": "digits/natural", "overrides": FEW, "published": [97.0, 0.25]},
            "pgd": {"recipe": "digits/pgd", "overrides": FEW, "published": [96.0, 0.5]},
        },
    }


@pytest.fixture
def written(tmp_path):
    """Write settings to a file."""

    def write(settings, name="mine.yaml"):
        file = tmp_path / name
        file.write_text(plain_yaml.dump(settings), encoding="utf-8")
        return file

    return write
