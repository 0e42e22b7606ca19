"""Data: labelled images from the hub, a folder, Parquet, or the digits that are always there."""

from holdfast.data.augmentation import Augmentation
from holdfast.data.classes import match_classes
from holdfast.data.dataset import ImageDataset
from holdfast.data.imagenet import imagenet_classes
from holdfast.data.importing import Imported
from holdfast.data.layouts import LAYOUTS, import_layout
from holdfast.data.show import Description, contact_sheet, describe
from holdfast.data.source import ImageData, as_expected

__all__ = [
    "LAYOUTS",
    "Augmentation",
    "Description",
    "ImageData",
    "ImageDataset",
    "Imported",
    "as_expected",
    "contact_sheet",
    "describe",
    "imagenet_classes",
    "import_layout",
    "match_classes",
]
