"""A data set as the rest of Holdfast sees it: images in [0, 1], labels, perhaps boxes and masks."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.utils.data import Dataset

from holdfast.contracts import Batch, InputError, check_labels
from holdfast.data.augmentation import Augmentation
from holdfast.data.classes import logit_names, match_classes
from holdfast.data.framing import Framing
from holdfast.data.images import DecodedImages, EncodedImages
from holdfast.data.planes import DecodedPlanes, EncodedPlanes

__all__ = ["ImageDataset"]


class ImageDataset(Dataset[dict[str, Tensor]]):
    """Labelled images, one at a time for a data loader or many at a time as a batch.

    A plain `torch.utils.data.DataLoader` makes batches of it that every objective takes; it draws
    them whole, which is fast. `ImageData.load` makes a data set of a folder, a file or a name.

    Parameters
    ----------
    name : str
        What the data set is called, for reports.
    classes : tuple of str
        The name of each class.
    images : DecodedImages or EncodedImages
        The N images.
    labels : Tensor
        The class of each image ``(N,)``.
    boxes : Tensor, optional
        A box around the object of each image ``(N, 4)``: x0, y0, x1, y1 in pixels of the original.
        Where images are resized and cropped, boxes are, too; what lies in a margin that is cut off
        becomes an empty box at the border. NaN for an image that has none.
    masks, saliency : DecodedPlanes or EncodedPlanes, optional
        A mask of the object of each image, in [0, 1], and how much each of its pixels matters.
    augmentation : Augmentation, optional
        Random changes of the samples, drawn anew whenever one is taken; `batch` knows none.
    order : Tensor, optional
        Which of the N images each sample is ``(M,)``: one may come several times, or never. By
        default each comes once.
    synonyms : tuple of tuple of str
        What else each class is called, such as by its WordNet id; by default nothing.
    mapping : str, optional
        How classes are matched with the logits of a model, as `match_classes` takes it.
    ordered : bool
        Whether classes are in an order of the data's own, rather than of the alphabet.

    Attributes
    ----------
    shape : tuple of int
        Channels, height and width of every image.

    Raises
    ------
    InputError
        If labels, boxes, masks or saliency do not fit the classes or each other.

    Examples
    --------
    >>> pixels = torch.full((2, 1, 4, 4), 255, dtype=torch.uint8)
    >>> images = DecodedImages(pixels, sizes=torch.full((2, 2), 4))
    >>> data = ImageDataset("white", ("paper", "snow"), images, labels=torch.tensor([0, 1]))
    >>> data[1]["images"].mean(), data[1]["labels"]
    (tensor(1.), tensor(1))
    """

    def __init__(
        self,
        name: str,
        classes: tuple[str, ...],
        images: DecodedImages | EncodedImages,
        labels: Integer[Tensor, " n"],
        boxes: Float[Tensor, "n 4"] | None = None,
        masks: DecodedPlanes | EncodedPlanes | None = None,
        saliency: DecodedPlanes | EncodedPlanes | None = None,
        augmentation: Augmentation | None = None,
        order: Integer[Tensor, " m"] | None = None,
        synonyms: tuple[tuple[str, ...], ...] = (),
        mapping: str | None = None,
        ordered: bool = True,
    ) -> None:
        check_labels(labels, len(images), len(classes))
        if boxes is not None and boxes.shape != (len(labels), 4):
            raise InputError("boxes", f"shape {tuple(boxes.shape)}", f"shape ({len(labels)}, 4)")
        self.name, self.classes, self.shape = name, classes, images.shape
        self._order = torch.arange(len(labels)) if order is None else order
        self.labels = labels.long()[self._order]
        self.augmentation = augmentation
        self.synonyms, self.mapping, self.ordered = synonyms, mapping, ordered
        self._images, self._boxes = images, boxes
        self._planes = {
            name: planes
            for name, planes in (("masks", masks), ("saliency", saliency))
            if planes is not None
        }
        for name, planes in self._planes.items():
            if len(planes) != len(images):
                raise InputError(name, f"{len(planes)} of them", f"one for each of {len(images)}")
            if isinstance(images, DecodedImages) and isinstance(planes, DecodedPlanes):
                _check_sizes(name, planes.sizes, images.sizes, range(len(images)))
        if boxes is not None and isinstance(images, DecodedImages):
            _check_boxes(boxes, images.sizes, range(len(images)))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.shape))
        return f"ImageDataset({self.name}: {len(self)} images {shape}, {len(self.classes)} classes)"

    def for_model(
        self,
        model_classes: Sequence[str] | int,
        mapping: Mapping[str, int | str] | Sequence[str] | str | Path | None = None,
    ) -> ImageDataset:
        """Return the same images, labelled by the logits of a model.

        Parameters
        ----------
        model_classes : sequence of str or int
            The model's names of its classes, in the order of its logits; or how many logits it has,
            where it names none.
        mapping : optional
            Which class is which logit, as `match_classes` takes it; by default as the data says.

        Returns
        -------
        ImageDataset
            ``labels`` are places among the logits, and ``classes`` the model's names of them.

        Raises
        ------
        HoldfastError
            If a class that has images cannot be matched with one logit.

        Examples
        --------
        >>> from holdfast.data import ImageData
        >>> data = ImageData("digits", limit=3).load("test")
        >>> backwards = data.for_model(tuple("9876543210"))
        >>> (data.labels + backwards.labels).tolist()
        [9, 9, 9]
        """
        chosen = self.mapping if mapping is None else mapping
        matched = match_classes(
            self.classes,
            model_classes,
            chosen,
            synonyms=self.synonyms,
            present=set(self.labels.tolist()),
            ordered=self.ordered,
        )
        relabelled = copy.copy(self)
        relabelled.classes = logit_names(model_classes)
        relabelled.labels = torch.tensor(matched)[self.labels]
        relabelled.synonyms, relabelled.mapping, relabelled.ordered = (), None, True
        return relabelled

    def batch(self, indices: Sequence[int] | Integer[Tensor, " n"]) -> Batch:
        """Return these images as they are, from 0 on, with what belongs to them.

        Parameters
        ----------
        indices : sequence of int or Tensor
            Which images, in which order; a ``range`` will do.

        Returns
        -------
        Batch
            ``images (N, C, H, W)`` float32 in [0, 1], ``labels (N,)`` int64, and if the data has
            them ``boxes (N, 4)`` float32 in pixels of these images, ``masks (N, H, W)`` float32 in
            [0, 1] and ``saliency (N, H, W)`` float32; each NaN for an image that has none.

        Raises
        ------
        InputError
            If the indices are no row of whole numbers, or one is below 0 or not below the number of
            images; or if a mask is of another size than its image.

        Examples
        --------
        >>> from holdfast.data import ImageData
        >>> batch = ImageData("digits").load("test").batch(range(32))
        >>> batch["images"].shape, batch["labels"].shape
        (torch.Size([32, 1, 16, 16]), torch.Size([32]))
        """
        chosen = torch.as_tensor(indices).cpu()
        mask = chosen.dtype == torch.bool
        if chosen.ndim != 1 or (len(chosen) and (mask or chosen.is_floating_point())):
            came = f"{chosen.dtype} of shape {tuple(chosen.shape)}"
            raise InputError("indices", came, "whole numbers, one an image")
        chosen = chosen.long()
        wrong = chosen[(chosen < 0) | (chosen >= len(self))]
        if len(wrong):
            raise InputError("indices", int(wrong[0]), f"images from 0 to {len(self) - 1}")
        stored = self._order[chosen]
        pixels, sizes = self._images.read(stored.tolist())
        batch = Batch(images=pixels.float().div_(255), labels=self.labels[chosen])
        if self._boxes is not None:
            _check_boxes(self._boxes[stored], sizes, chosen.tolist())
            framing = self._images.framing or Framing(self.shape[1:], fit="squash")
            batch["boxes"] = framing.boxes(self._boxes[stored], sizes)
        for name, planes in self._planes.items():
            values, own_sizes = planes.read(stored.tolist())
            _check_sizes(name, own_sizes, sizes, chosen.tolist())
            batch[name] = values  # type: ignore[literal-required]
        return batch

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            # Not an InputError: a loop over the data ends by this one.
            raise IndexError(f"index {index} of a data set of {len(self)} images")
        return self.__getitems__([place])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Tensor]]:
        """Return several samples; data loaders ask for a whole batch by it."""
        batch = self.batch(indices)
        columns = {name: values.unbind() for name, values in batch.items()}  # type: ignore[attr-defined]
        samples = [
            dict(zip(columns, sample, strict=True))
            for sample in zip(*columns.values(), strict=True)
        ]
        if self.augmentation is None:
            return samples
        return [self.augmentation(sample) for sample in samples]


def _check_boxes(
    boxes: Float[Tensor, "n 4"], sizes: Integer[Tensor, "n 2"], indices: Sequence[int]
) -> None:
    """Refuse a box that leaves its image by more than a pixel."""
    last = sizes.flip(1) + 1
    wrong = ((boxes[:, :2] < -1) | (boxes[:, 2:] > last)).any(1).nonzero().flatten().tolist()
    if wrong:
        box = ", ".join(f"{x:g}" for x in boxes[wrong[0]].tolist())
        height, width = sizes[wrong[0]].tolist()
        came = f"x0, y0, x1, y1 of {box} for image {indices[wrong[0]]}"
        expected = f"a box inside the image of {width}×{height}; --data.box_format says what it is"
        raise InputError("boxes", came, expected)


def _check_sizes(
    name: str,
    sizes: Integer[Tensor, "n 2"],
    expected: Integer[Tensor, "n 2"],
    indices: Sequence[int],
) -> None:
    """Refuse a mask that is not of the size of its image; 0 is that of one that is not there."""
    wrong = ((sizes != expected) & (sizes > 0)).any(1).nonzero().flatten().tolist()
    if wrong:
        came, wanted = (tuple(of[wrong[0]].tolist()) for of in (sizes, expected))
        where = f"{came} pixels for image {indices[wrong[0]]}"
        raise InputError(name, where, f"the size of the image, {wanted}")
