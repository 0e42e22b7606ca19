"""The errors and warnings that Holdfast raises on purpose; `holdfast.contracts` offers them.

They stand apart from it because the command needs them before torch is imported: that takes
seconds.
"""

from __future__ import annotations

__all__ = ["HoldfastError", "InputError", "StuckWarning", "SurrogateWarning", "reason"]


class HoldfastError(Exception):
    """The base of all errors that Holdfast raises on purpose."""


class InputError(HoldfastError, ValueError):
    """An argument is not what it must be.

    Parameters
    ----------
    argument : str
        The name of the argument at fault.
    came : object
        What was given.
    expected : str
        What would have been right.

    Examples
    --------
    >>> raise InputError("eps", -1, "a number of at least 0")
    Traceback (most recent call last):
        ...
    holdfast.contracts.InputError: eps: expected a number of at least 0, got -1
    """

    def __init__(self, argument: str, came: object, expected: str) -> None:
        super().__init__(f"{argument}: expected {expected}, got {came}")
        self.argument, self.came, self.expected = argument, came, expected

    def __reduce__(self) -> tuple[type[InputError], tuple[str, object, str]]:
        """Keep the three parts when the error crosses processes."""
        return InputError, (self.argument, self.came, self.expected)


class StuckWarning(UserWarning):
    """Most steps of an attack had no direction: what it left standing is no evidence."""


class SurrogateWarning(UserWarning):
    """The softplus surrogate does not answer as the model does: its directions may mislead."""


# What a message or a pickle names is where users import them from.
for _kind in (HoldfastError, InputError, StuckWarning, SurrogateWarning):
    _kind.__module__ = "holdfast.contracts"


def reason(error: BaseException) -> str:
    r"""Give an error's kind and its first sentence, in one line.

    Examples
    --------
    >>> reason(OSError("No such thing.\nTry another. Or none."))
    'OSError: No such thing.'
    """
    text = " ".join(str(error).split("\n")[0].split())
    head, dot, _ = text.partition(". ")
    return f"{type(error).__name__}: {head}{dot.strip()}" if text else type(error).__name__
