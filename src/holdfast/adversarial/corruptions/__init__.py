"""The fifteen common corruptions of images: noise, blur, weather, and what cameras and files do.

`Corruption` is one of them as an attack, `corrupt` the same as a plain function, and `CORRUPTIONS`
are their names in the order of the paper (Hendrycks and Dietterich, Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations, ICLR 2019).
"""

from holdfast.adversarial.corruptions.corruption import CORRUPTIONS, Corruption, corrupt

__all__ = ["CORRUPTIONS", "Corruption", "corrupt"]
