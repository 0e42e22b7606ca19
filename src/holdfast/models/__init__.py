"""Classifiers, normalization that travels with them, and the softplus surrogate of any of them."""

from holdfast.models.attributing import Attributing
from holdfast.models.build import Architecture, names
from holdfast.models.classifier import as_logits, classify, no_gradient
from holdfast.models.convolution import double_backward
from holdfast.models.features import from_features, last_convolution, with_features
from holdfast.models.mlp import mlp
from holdfast.models.mnist import mnist_cnn
from holdfast.models.normalized import Normalized, Standardized
from holdfast.models.resnet import cifar_resnet10, cifar_resnet18
from holdfast.models.state import evaluating, statistics_kept
from holdfast.models.surrogate import softplus
from holdfast.models.vgg import vgg16_gap
from holdfast.models.wide_resnet import small_resnet, wide_resnet, wrn_28_10, wrn_40_2

__all__ = [
    "Architecture",
    "Attributing",
    "Normalized",
    "Standardized",
    "as_logits",
    "cifar_resnet10",
    "cifar_resnet18",
    "classify",
    "double_backward",
    "evaluating",
    "from_features",
    "last_convolution",
    "mlp",
    "mnist_cnn",
    "names",
    "no_gradient",
    "small_resnet",
    "softplus",
    "statistics_kept",
    "vgg16_gap",
    "wide_resnet",
    "with_features",
    "wrn_28_10",
    "wrn_40_2",
]
