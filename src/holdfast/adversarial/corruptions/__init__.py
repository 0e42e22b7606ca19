"""Common corruptions of images: noise, blur, weather, and what cameras and files do.

`Corruption` is one of them as an attack and `corrupt` the same as a plain function. `CORRUPTIONS`
are the names of the fifteen in the order of the paper (Hendrycks and Dietterich, Benchmarking
Neural Network Robustness to Common Corruptions and Perturbations, ICLR 2019), `EXTRA_CORRUPTIONS`
the four that are published beside them, and `ECCV2020_CORRUPTIONS` the rows of that paper's table.
"""

from holdfast.adversarial.corruptions.corruption import (
    CORRUPTIONS,
    ECCV2020_CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    Corruption,
    corrupt,
)

__all__ = [
    "CORRUPTIONS",
    "ECCV2020_CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "Corruption",
    "corrupt",
]
