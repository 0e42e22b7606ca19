"""Data: labelled images from the hub, a folder, Parquet, or the digits that are always there."""

from holdfast.data.dataset import ImageDataset
from holdfast.data.source import ImageData

__all__ = ["ImageData", "ImageDataset"]
