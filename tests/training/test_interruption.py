import os
import signal
from dataclasses import dataclass, replace

import pytest
import torch

from holdfast.training.fit import train
from holdfast.training.interruption import Interruption, Stop
from holdfast.training.recipe import load_recipe

TINY = {"data.limit": 96, "batch_size": 32, "model.options": {"hidden": [16]}}


def test_a_signal_is_noted_and_ends_the_block():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def block(number):
        with Interruption() as interruption:
            os.kill(os.getpid(), number)
            assert interruption.asked == number
            raise Stop

    with pytest.raises(KeyboardInterrupt):
        block(signal.SIGINT)
    with pytest.raises(SystemExit, match="143"):
        block(signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_block_that_ends_as_it_should_is_ended_by_it_too():
    with pytest.raises(KeyboardInterrupt), Interruption():
        os.kill(os.getpid(), signal.SIGINT)


def test_the_second_does_not_wait():
    reached = []

    def block():
        with Interruption():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            reached.append(1)

    with pytest.raises(SystemExit, match="143"):
        block()
    assert not reached


def test_other_errors_pass():
    def block():
        with Interruption():
            os.kill(os.getpid(), signal.SIGINT)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        block()


NOTES = []


@dataclass(frozen=True)
class Signalled:
    """An objective in whose n-th step a signal comes, or two."""

    step: int
    signals: tuple[str, ...]

    def __call__(self, model, batch):
        NOTES.append((batch["epoch"], batch["progress"]))
        if len(NOTES) == self.step:
            for number in self.signals:
                os.kill(os.getpid(), getattr(signal, number))
        return {"loss": model(batch["images"]).square().mean()}


def recipe(step, *signals):
    NOTES.clear()
    tiny = load_recipe("digits/natural", TINY | {"trainer": {"max_epochs": 2}})
    return replace(tiny, objective=Signalled(step, signals or ("SIGINT",)))


@pytest.mark.parametrize("step", [1, 3, 5])
def test_training_ends_after_the_step_and_goes_on_from_there(step, tmp_path):
    asked = recipe(step)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(asked, tmp_path, progress=False)
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (tmp_path / "model.safetensors").exists()
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == step

    train(asked, tmp_path, resume=True, progress=False)
    # Three steps an epoch; none is left out and none taken twice.
    assert [(n // 3, n / 6) for n in range(6)] == NOTES
    assert (tmp_path / "model.safetensors").exists()


def test_two_signals_end_training_in_the_midst_of_a_step(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(recipe(5, "SIGINT", "SIGINT"), tmp_path, progress=False)
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3


def test_in_the_last_step_everything_is_saved(tmp_path):
    with pytest.raises(SystemExit, match="143"):
        train(recipe(6, "SIGTERM"), tmp_path, progress=False)
    assert (tmp_path / "model.safetensors").exists()
