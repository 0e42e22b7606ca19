"""Classifiers, normalization that travels with them, and the softplus surrogate of any of them."""

from holdfast.models.anchor import Anchor, at_anchor
from holdfast.models.attributing import Attributing
from holdfast.models.build import Architecture, classes_in, names
from holdfast.models.classifier import as_logits, classify, differentiate, no_gradient
from holdfast.models.discriminator import WithDiscriminator
from holdfast.models.features import (
    from_features,
    last_convolution,
    last_features,
    with_features,
)
from holdfast.models.fit import SurrogateFit, surrogate_fit
from holdfast.models.mlp import mlp
from holdfast.models.mnist import mnist_cnn
from holdfast.models.normalized import Normalized, Standardized
from holdfast.models.rar_resnet import rar_resnet
from holdfast.models.resnet import cifar_resnet10, cifar_resnet18, cifar_resnet50
from holdfast.models.se_resnet import resnet50_se
from holdfast.models.state import evaluating, statistics_kept
from holdfast.models.surrogate import softplus
from holdfast.models.twice import double_backward, no_second_derivative
from holdfast.models.vgg import vgg16_gap
from holdfast.models.wide_resnet import small_resnet, wide_resnet, wrn_28_10, wrn_40_2
from holdfast.preprocessing import Preprocessing

__all__ = [
    "Anchor",
    "Architecture",
    "Attributing",
    "Normalized",
    "Preprocessing",
    "Standardized",
    "SurrogateFit",
    "WithDiscriminator",
    "as_logits",
    "at_anchor",
    "cifar_resnet10",
    "cifar_resnet18",
    "cifar_resnet50",
    "classes_in",
    "classify",
    "differentiate",
    "double_backward",
    "evaluating",
    "from_features",
    "last_convolution",
    "last_features",
    "mlp",
    "mnist_cnn",
    "names",
    "no_gradient",
    "no_second_derivative",
    "rar_resnet",
    "resnet50_se",
    "small_resnet",
    "softplus",
    "statistics_kept",
    "surrogate_fit",
    "vgg16_gap",
    "wide_resnet",
    "with_features",
    "wrn_28_10",
    "wrn_40_2",
]
