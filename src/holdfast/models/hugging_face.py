"""Hugging Face's image classifiers, and what their configurations say of them."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from holdfast.contracts import HoldfastError, InputError
from holdfast.errors import reason
from holdfast.models import timm_models
from holdfast.models.card import Card
from holdfast.models.image_processor import Processed, read_processor

__all__ = ["PixelClassifier", "build", "describe"]

# What could fetch code or weights, and what `Architecture` itself says.
_LEFT_OUT = (
    "_name_or_path",
    "architectures",
    "attn_implementation",
    "auto_map",
    "dtype",
    "id2label",
    "label2id",
    "num_labels",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
    "use_pretrained_backbone",
)
_OF_TIMM = "timm_wrapper"
"""What transformers calls models of timm; Holdfast leaves them to timm itself."""
_ORDER = "channel_order"
"""The one option that is ours: "bgr" where the network takes blue first."""


class PixelClassifier(nn.Module):
    """A classifier of Hugging Face, from images to logits as any other.

    Parameters
    ----------
    network : nn.Module
        What is called with ``pixel_values`` and answers with an object that has ``logits``.
    bgr : bool
        Whether it takes the channels in the order blue, green, red.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> class Network(nn.Module):
    ...     def forward(self, pixel_values):
    ...         return SimpleNamespace(logits=pixel_values.mean((2, 3)))
    >>> import torch
    >>> PixelClassifier(Network(), bgr=True)(torch.arange(3.0).view(1, 3, 1, 1))
    tensor([[2., 1., 0.]])
    """

    def __init__(self, network: nn.Module, bgr: bool = False) -> None:
        super().__init__()
        self.network, self.bgr = network, bgr

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Classify normalized images."""
        answer = self.network(pixel_values=images.flip(1) if self.bgr else images)
        logits: Tensor = answer.logits
        return logits


def describe(name: str) -> Card:
    """Read what the configurations of a model say: the network, its classes and its preprocessing.

    Parameters
    ----------
    name : str
        A folder that ``save_pretrained`` wrote, or a name on the hub. A folder goes before the hub.

    Raises
    ------
    HoldfastError
        If transformers is not installed, there is no such model, it is no image classifier, or it
        needs code of its own.
    """
    settings = _settings(name)
    if settings["model_type"] == _OF_TIMM:
        return timm_models.describe(_place(name))
    processed = _processed(name, settings)
    labels = settings.pop("id2label", None) or {}
    return Card(
        f"hf:{name}",
        "DEFAULT",
        _labels(labels),
        len(labels) or None,
        processed.mean,
        processed.std,
        processed.preprocessing,
        options={_ORDER: "bgr"} if processed.bgr else {},
        config={key: value for key, value in settings.items() if key not in _LEFT_OUT},
        silent=processed.silent,
    )


def build(
    name: str,
    *,
    classes: int | None,
    in_channels: int | None,
    size: int | None,
    weights: str | None,
    options: Mapping[str, Any],
    config: Mapping[str, Any] | None,
    pretrained: bool,
) -> nn.Module:
    """Make a network of transformers; the arguments are those of `Architecture`.

    With a ``config`` the network is built of that, and nobody is asked.

    Raises
    ------
    HoldfastError
        As :func:`describe`; or the weights cannot be had.
    InputError
        If the options are no settings of the network, or the weights do not fit it in more than its
        last layer.
    """
    if weights not in (None, "DEFAULT"):
        expected = "'DEFAULT', its own, None for random ones, or a file of weights"
        raise InputError("Architecture.weights", weights, expected)
    given = _settings(name) if config is None else copy.deepcopy(dict(config))
    if config is None and given["model_type"] == _OF_TIMM:
        return timm_models.build(
            _place(name),
            classes=classes,
            in_channels=in_channels,
            size=size,
            weights=weights,
            options=options,
            pretrained=pretrained,
        )
    had = len(given.get("id2label") or {}) or None
    if classes is None and config is not None:
        classes = had
    made = _config(name, given, classes, in_channels, size, options)
    bgr = options.get(_ORDER) == "bgr"
    if weights is None or not pretrained:
        return PixelClassifier(_of_config(name, made), bgr)
    return PixelClassifier(_trained(name, made, new_head=classes not in (None, had)), bgr)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise HoldfastError(
            "transformers is not installed, which models named hf:… need: "
            "pip install 'holdfast[transformers]'"
        ) from error
    return transformers


def _folder(name: str) -> Path | None:
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else None


@contextmanager
def _asking(name: str, what: str) -> Iterator[dict[str, Any]]:
    """Turn whatever transformers raises in the block into one line; yield arguments for it."""
    from transformers.utils import logging as transformers_logging

    from holdfast.hub import asking_the_hub, why_not

    local, asked = _folder(name) is not None, False
    logger, bar = logging.getLogger("transformers"), transformers_logging.is_progress_bar_enabled()
    level = logger.level
    logger.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with asking_the_hub(local) as asked:
            yield {"trust_remote_code": False, "local_files_only": local}
    except HoldfastError:
        raise
    except Exception as error:  # a download, and a file of anybody's, can fail in any way
        if "trust_remote_code" in str(error):
            raise HoldfastError(
                f"hf:{name} needs code of its own, which Holdfast does not run; write a function "
                "that makes the model and name it as package.module:function"
            ) from error
        why = why_not(error, local, asked)
        if not local and not asked:
            why = f"there is no such folder; {why}"
        raise HoldfastError(f"{what} of hf:{name} cannot be had ({why})") from error
    finally:
        logger.setLevel(level)
        if bar:
            transformers_logging.enable_progress_bar()


def _place(name: str) -> str:
    return str(_folder(name) or name)


def _settings(name: str) -> dict[str, Any]:
    """Read the configuration of the network as plain values."""
    transformers = _transformers()
    with _asking(name, "the configuration") as arguments:
        config = transformers.AutoConfig.from_pretrained(_place(name), **arguments)
    settings: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    if settings.get("model_type") != _OF_TIMM:
        _check_type(name, settings)
    return settings


def _check_type(name: str, settings: Mapping[str, Any]) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    kind = settings.get("model_type")
    if kind not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES or kind == _OF_TIMM:
        raise InputError("Architecture.name", f"'hf:{name}', a {kind}", "an image classifier")


def _config(
    name: str,
    settings: dict[str, Any],
    classes: int | None,
    in_channels: int | None,
    size: int | None,
    options: Mapping[str, Any],
) -> Any:
    transformers = _transformers()
    _check_type(name, settings)
    changes = {key: value for key, value in options.items() if key != _ORDER}
    unknown = sorted(key for key in changes if key not in settings or key in _LEFT_OUT)
    if unknown:
        expected = f"settings of hf:{name}, which is a {settings['model_type']}"
        raise InputError("Architecture.options", ", ".join(unknown), expected)
    if in_channels is not None and "num_channels" in settings:
        changes["num_channels"] = in_channels
    if size is not None and "image_size" in settings:
        same = isinstance(settings["image_size"], int)
        changes["image_size"] = size if same else [size, size]
    kept = {k: v for k, v in settings.items() if k not in _LEFT_OUT and k != "model_type"}
    labels = settings.get("id2label")
    if classes is not None:
        kept["num_labels"] = classes
    elif labels:
        kept["id2label"] = {int(key): label for key, label in labels.items()}
    try:
        return transformers.AutoConfig.for_model(settings["model_type"], **{**kept, **changes})
    except Exception as error:  # a configuration of anybody's can be wrong in any way
        expected = f"settings of a {settings['model_type']} ({reason(error)})"
        raise InputError("Architecture.options, config", dict(options), expected) from error


def _of_config(name: str, config: Any) -> nn.Module:
    import torch

    try:
        made: nn.Module = _transformers().AutoModelForImageClassification.from_config(
            config, trust_remote_code=False, dtype=torch.float32
        )
        return made
    except Exception as error:
        raise HoldfastError(f"hf:{name} cannot be built ({reason(error)})") from error


def _trained(name: str, config: Any, new_head: bool) -> nn.Module:
    import torch

    with _asking(name, "the trained weights") as arguments:
        made, info = _transformers().AutoModelForImageClassification.from_pretrained(
            _place(name),
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **arguments,
        )
    shapes = {key: tensor.shape for key, tensor in made.state_dict().items()}
    others = [k if isinstance(k, str) else k[0] for k in info["mismatched_keys"]]
    fresh = [*info["missing_keys"], *others]
    # What transformers cannot fill it draws at random: right for a new last layer alone.
    wrong = sorted(
        key for key in fresh if not (new_head and shapes.get(key, ())[:1] == (config.num_labels,))
    )
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        came = f"none that fit {', '.join(wrong[:3])}{more}"
        expected = f"trained weights of hf:{name} for all its layers"
        if not new_head:
            expected += "; for another last layer, give another number of classes"
        raise InputError("Architecture.weights", came, expected)
    trained: nn.Module = made
    return trained


def _processed(name: str, settings: Mapping[str, Any]) -> Processed:
    transformers = _transformers()
    try:
        with _asking(name, "the image processor") as arguments:
            processor = transformers.AutoImageProcessor.from_pretrained(_place(name), **arguments)
    except HoldfastError as error:
        if isinstance(error.__cause__, OSError) and _has_no_processor(name):
            return Processed(silent=True)
        raise
    return read_processor(processor, settings.get("num_channels") or 3, f"hf:{name}")


def _has_no_processor(name: str) -> bool:
    folder = _folder(name)
    if folder is None:
        return False
    return not any(
        (folder / file).is_file() for file in ("preprocessor_config.json", "processor_config.json")
    )


def _labels(labels: Mapping[Any, str]) -> tuple[str, ...]:
    """Give the labels in their order; nothing for those that transformers makes up."""
    ordered = [str(labels[key]) for key in sorted(labels, key=int)]
    made_up = [f"LABEL_{n}" for n in range(len(ordered))]
    return () if ordered == made_up else tuple(ordered)
