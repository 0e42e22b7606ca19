"""Fixtures shared by the whole suite."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def own_errors() -> Iterator[None]:
    """Switch beartype's shape checks off, to see the errors that a user would see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@dataclass(frozen=True)
class Ended:
    """How a command ended: status −9 is a kill, by the time limit if it is so said."""

    status: int
    stdout: str
    stderr: str
    seconds: float
    timed_out: bool


@dataclass(frozen=True)
class Command:
    """Runs the command in a process forked from one that has imported everything."""

    process: subprocess.Popen[str]
    folder: Path
    count: list[int] = field(default_factory=lambda: [0])

    def __call__(
        self,
        *arguments: object,
        cwd: Path | str = ".",
        env: dict[str, str | None] | None = None,
        stdin: str = "",
        seconds: float = 60.0,
        signals: list[tuple[int, float | Path]] | None = None,
        before: str = "",
    ) -> Ended:
        """Run ``holdfast`` with arguments.

        ``env`` changes the environment (None removes a variable); ``signals`` are sent one after
        the other, each after so many seconds or as soon as a file exists; ``before`` is Python
        that the new process executes first, such as a resource limit.
        """
        self.count[0] += 1
        own = self.folder / str(self.count[0])
        own.mkdir()
        (own / "stdin").write_text(stdin, encoding="utf-8", errors="surrogateescape")
        when = [(s, t if isinstance(t, float | int) else str(t)) for s, t in signals or []]
        asked = {
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(Path(cwd).absolute()),
            "env": env or {},
            "seconds": seconds,
            "signals": when,
            "before": before,
        }
        asked |= {stream: str(own / stream) for stream in ("stdin", "stdout", "stderr")}
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        status, timed_out, taken = json.loads(self.process.stdout.readline())
        out, err = (
            (own / stream).read_text(encoding="utf-8", errors="surrogateescape")
            if (own / stream).exists()
            else ""
            for stream in ("stdout", "stderr")
        )
        return Ended(status, out, err, taken, timed_out)


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """The ``holdfast`` command, each time in a process of its own, without the imports' seconds."""
    if os.name != "posix":
        pytest.skip("forks")
    program = [sys.executable, "-P", str(Path(__file__).with_name("nursery.py"))]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield Command(process, tmp_path_factory.mktemp("commands"))
        process.stdin.close()


@pytest.fixture(scope="session")
def imported() -> frozenset[str]:
    """Modules that are there in a new process once packages are imported and maps are ranked."""
    program = (
        "import sys, torch\n"
        "import holdfast.metrics, holdfast.attributions, holdfast.models, holdfast.training\n"
        "import holdfast.plot\n"
        "holdfast.metrics.spearman_rho(torch.rand(1, 9), torch.rand(1, 9))\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return frozenset(done.stdout.split())


@pytest.fixture
def smooth_model() -> nn.Module:
    """A float64 classifier of 2×5×5 images into 4 classes that is smooth everywhere."""
    return nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.Softplus(),
        nn.Flatten(),
        nn.Linear(27, 8),
        nn.Tanh(),
        nn.Linear(8, 4),
    ).double()


@pytest.fixture
def relu_model() -> nn.Module:
    """A float64 classifier of 2×5×5 images into 4 classes, with ReLU in all its forms."""

    class Forms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 4, 3)
            self.hidden = nn.Linear(36, 16)
            self.last = nn.Linear(16, 4)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.conv(x)).flatten(1)
            return self.last(torch.relu(self.hidden(x)))

    return Forms().double()


@pytest.fixture
def stateful_model() -> nn.Module:
    """A classifier of 2×5×5 images in train mode, with batch-norm, dropout and one frozen layer."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.BatchNorm2d(4),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(36, 4),
    )
    model.train()
    model[3].eval()
    model[0].weight.requires_grad_(False)
    model[6].weight.grad = torch.ones_like(model[6].weight)
    return model


@pytest.fixture
def untouched() -> Callable[[nn.Module], AbstractContextManager[None]]:
    """Assert that a block leaves a model's modes, flags, gradients and buffers as they were."""

    @contextmanager
    def watch(model: nn.Module) -> Iterator[None]:
        before = _state(model)
        yield
        after = _state(model)
        assert before.keys() == after.keys()
        for name, value in before.items():
            same = torch.equal(value, after[name]) if isinstance(value, Tensor) else None
            assert same if same is not None else value == after[name], name

    return watch


def _state(model: nn.Module) -> dict[str, object]:
    state: dict[str, object] = {}
    for name, module in model.named_modules():
        state[f"mode of {name}"] = module.training
    for name, parameter in model.named_parameters():
        state[f"flag of {name}"] = parameter.requires_grad
        state[f"value of {name}"] = parameter.detach().clone()
        state[f"gradient of {name}"] = None if parameter.grad is None else parameter.grad.clone()
    for name, buffer in model.named_buffers():
        state[f"buffer {name}"] = buffer.clone()
    return state
