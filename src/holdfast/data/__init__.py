"""Data: labelled images from the hub, a folder, Parquet, or the digits that are always there."""

from holdfast.data.augmentation import Augmentation
from holdfast.data.dataset import ImageDataset
from holdfast.data.importing import Imported
from holdfast.data.layouts import LAYOUTS, import_layout
from holdfast.data.source import ImageData

__all__ = ["LAYOUTS", "Augmentation", "ImageData", "ImageDataset", "Imported", "import_layout"]
