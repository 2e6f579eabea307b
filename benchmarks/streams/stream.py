"""A stream: experiences in their order, each with its data and its labels."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from acn_cl.benchmarks.datasets.arrays import ImageArray, Labels, Pixels
from acn_cl.benchmarks.datasets.table import DatasetInfo
from acn_cl.benchmarks.streams.pixels import PixelMap

Scenario = Literal["task-incremental", "class-incremental", "domain-incremental"]
LabelSpace = Literal["per-experience", "seen-order", "global"]
Split = Literal["train", "test"]


@dataclass(frozen=True, eq=False)
class ImageView:
    """Some rows of a data set's images, in a fixed order; nothing is read until it is indexed.

    An array-like of uint8 ``(N, C, H, W)``: ``view[rows]`` for an integer array or a slice, ``np.asarray(view)`` for
    all of it.
    """

    source: ImageArray
    indices: Labels
    pixels: PixelMap | None = None

    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, C, H, W)``."""
        return (len(self), *self.source.shape[1:])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows: Any) -> Pixels:
        """The images of ``rows``, a fresh array ``(n, C, H, W)``; ``(C, H, W)`` for one integer."""
        if isinstance(rows, (int, np.integer)):
            image: Pixels = self[np.array([rows])][0]
            return image
        images: Pixels = self.source[self.indices[rows]]
        return images if self.pixels is None else self.pixels(images)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[:], dtype)


@dataclass(frozen=True, eq=False)
class Part:
    """Images and labels of one experience, for training, test or validation."""

    dataset: str
    """The data set's name."""
    split: Split
    """The part of the data set that the images are from; a validation part is from ``train``."""
    images: ImageView
    labels: Labels
    """``(N,)``, in the stream's label space."""
    original_labels: Labels
    """``(N,)``, the data set's own class ids."""

    @property
    def indices(self) -> Labels:
        """``(N,)``: rows in the data set's part, ascending."""
        return self.images.indices

    def __len__(self) -> int:
        return len(self.labels)

    def load(self) -> Pixels:
        """All images in memory, contiguous uint8 ``(N, C, H, W)``."""
        return np.ascontiguousarray(self.images[:])


@dataclass(frozen=True, eq=False)
class Experience:
    """What is learned in one go."""

    index: int
    classes: tuple[int, ...]
    """Original class ids, in the order of the stream."""
    train: Part
    test: Part
    validation: Part | None = None


@dataclass(frozen=True, eq=False)
class Stream:
    """A data set, cut into experiences."""

    name: str
    scenario: Scenario
    labels: LabelSpace
    info: DatasetInfo
    class_order: tuple[int, ...]
    """Original class ids in the order in which they come."""
    experiences: tuple[Experience, ...]
    stop_after: int | None = None
    """Train only the first so many experiences; the others are there to be tested."""
    augment: bool = True
    """Whether training images are cropped and flipped, where the data set's transforms do that."""
    one_pass: bool = False
    """An online stream: each training image is seen once."""
    data_checksum: str | None = None
    """Of the whole data set that it was cut from, see ``ImageDataset.checksum``; None where there is none."""

    def __len__(self) -> int:
        return len(self.experiences)

    def head_size(self, index: int) -> int:
        """Outputs of a head made for experience ``index`` alone: its largest label plus one."""
        return int(max(self.experiences[index].train.labels.max(), self.experiences[index].test.labels.max())) + 1

    def output_size(self, index: int) -> int:
        """Logits that the loss of experience ``index`` is taken over.

        ``per-experience``: the classes of the experience. ``seen-order``: all classes seen by its end.
        ``global``: the largest original id seen by its end, plus one. That is what Avalanche does: its multi-head
        classifier gives a head as many outputs as its largest label plus one (:meth:`head_size`) and pads the result
        with logits of 0 up to the largest label that any head has seen (``MultiTaskModule.forward``).
        """
        if self.labels == "per-experience":
            return self.head_size(index)
        return max(self.head_size(i) for i in range(index + 1))

    def task_label(self, index: int) -> int:
        """Avalanche's task label: the experience's index where the learner is told it, else 0."""
        return index if self.scenario == "task-incremental" else 0

    def benchmark(self) -> Any:
        """The same data as an Avalanche benchmark, see ``avalanche_benchmark.to_avalanche``."""
        from acn_cl.benchmarks.streams.avalanche_benchmark import to_avalanche

        return to_avalanche(self)
