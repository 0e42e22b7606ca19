"""What every package agrees on: the shapes of methods, the checks of input, and its one error.

A method is a frozen dataclass of its hyper-parameters, called with a model and a batch. The five
protocols say with what, and what comes back.
"""

from holdfast.contracts.draws import generators, same_draws
from holdfast.contracts.fields import check_positive, checked
from holdfast.contracts.protocols import (
    Attack,
    Attribution,
    Batch,
    Check,
    Manipulation,
    Objective,
    Outcome,
    Output,
)
from holdfast.contracts.tensors import (
    check_images,
    check_labels,
    check_precision,
    check_same_shape,
    chunks,
    default_chunk,
)
from holdfast.errors import HoldfastError, InputError, StuckWarning, SurrogateWarning

__all__ = [
    "Attack",
    "Attribution",
    "Batch",
    "Check",
    "HoldfastError",
    "InputError",
    "Manipulation",
    "Objective",
    "Outcome",
    "Output",
    "StuckWarning",
    "SurrogateWarning",
    "check_images",
    "check_labels",
    "check_positive",
    "check_precision",
    "check_same_shape",
    "checked",
    "chunks",
    "default_chunk",
    "generators",
    "same_draws",
]
