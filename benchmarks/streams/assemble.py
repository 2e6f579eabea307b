"""What a plan becomes with a data set: experiences with their images, labels and held-out parts."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from acn_cl.benchmarks.datasets.arrays import ImageDataset, Labels
from acn_cl.benchmarks.streams import draws
from acn_cl.benchmarks.streams.pixels import PixelMap
from acn_cl.benchmarks.streams.plans import Slice
from acn_cl.benchmarks.streams.stream import Experience, ImageView, LabelSpace, Part, Scenario, Split, Stream
from acn_cl.errors import SpecError
from acn_cl.seeding import Seeds


def assemble(
    name: str,
    dataset: ImageDataset,
    plan: Sequence[Slice],
    *,
    seeds: Seeds,
    scenario: Scenario = "task-incremental",
    labels: LabelSpace = "per-experience",
    images_per_class: int | None = None,
    validation: float = 0.0,
    stop_after: int | None = None,
    augment: bool = True,
    one_pass: bool = False,
) -> Stream:
    """Cut ``dataset`` into the experiences of ``plan``.

    Args:
        name: the stream's name, for records.
        dataset: its images and labels.
        plan: the classes of each experience, in the order in which they come.
        seeds: the run's random streams; only ``class_order`` is drawn from, and never for the test part.
        scenario: what the learner is told.
        labels: the label space, see :class:`Stream`.
        images_per_class: train on so many images of each class (few-shot); None: on all.
        validation: share of each class's training images that is held out, in [0, 1).
        stop_after: train only the first so many experiences.
        augment: whether training images are cropped and flipped.
        one_pass: an online stream.

    Raises:
        SpecError: a class has too few images for ``images_per_class`` or ``validation``.
    """
    experiences = []
    for index, (piece, label_of) in enumerate(zip(plan, label_mappings(plan, labels), strict=True)):
        kept = None if piece.full else images_per_class
        train_rows, held_rows = _training_rows(dataset.train.labels, piece.classes, seeds, kept, validation)
        test_rows = np.flatnonzero(np.isin(dataset.test.labels, piece.classes))
        part = partial(_part, dataset, piece.pixels, label_of)
        experiences.append(
            Experience(
                index,
                piece.classes,
                train=part("train", train_rows),
                test=part("test", test_rows),
                validation=part("train", held_rows) if validation else None,
            )
        )
    return Stream(
        name,
        scenario,
        labels,
        dataset.info,
        class_order=tuple(dict.fromkeys(original for piece in plan for original in piece.classes)),
        experiences=tuple(experiences),
        stop_after=stop_after,
        augment=augment,
        one_pass=one_pass,
        data_checksum=dataset.checksum,
    )


def _part(dataset: ImageDataset, pixels: PixelMap | None, label_of: Labels, split: Split, rows: Labels) -> Part:
    source = dataset.part(split)
    original = source.labels[rows]
    return Part(dataset.info.name, split, ImageView(source.images, rows, pixels), label_of[original], original)


def label_mappings(plan: Sequence[Slice], labels: LabelSpace) -> list[Labels]:
    """For each experience, the label of every original class id (-1: not one of its classes).

    ``per-experience``: the slice's own labels, or 0..C-1 in the order of its classes. ``seen-order``: 0, 1, 2 … in the
    order in which classes first come. ``global``: the original ids.
    """
    seen: dict[int, int] = {}
    mappings = []
    for piece in plan:
        for original in piece.classes:
            seen.setdefault(original, len(seen))
        match labels:
            case "per-experience":
                ids = piece.labels or tuple(range(len(piece.classes)))
            case "seen-order":
                ids = tuple(seen[original] for original in piece.classes)
            case "global":
                ids = piece.classes
        mapping = np.full(1 + max(max(piece.classes) for piece in plan), -1, np.int64)
        mapping[list(piece.classes)] = ids
        mappings.append(mapping)
    return mappings


def _training_rows(
    labels: Labels, classes: Sequence[int], seeds: Seeds, images_per_class: int | None, validation: float
) -> tuple[Labels, Labels]:
    """Rows to train on and rows held out, ascending: class by class, the held-out ones first."""
    train, held = [], []
    for original in classes:
        rows = np.flatnonzero(labels == original)
        rest = rows
        if validation:
            count = _held_count(len(rows), validation)
            shuffled = rows[draws.validation(seeds, original, len(rows))]
            held.append(shuffled[:count])
            rest = np.sort(shuffled[count:])
        if images_per_class is not None:
            if images_per_class > len(rest):
                raise SpecError(
                    ("images_per_class",), f"class {original} has {len(rest)} training images, not {images_per_class}"
                )
            rest = rest[draws.few(seeds, original, len(rest))[:images_per_class]]
        train.append(rest)
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(held)) if held else np.empty(0, np.int64)


def _held_count(images: int, validation: float) -> int:
    """``validation`` of a class's images, to the nearest whole one."""
    count = round(images * validation)
    if not 0 < count < images:
        raise SpecError(
            ("validation",),
            f"{validation} of a class's {images} images is {count}; the least is {1 / images:.3g}, "
            f"the most {1 - 1 / images:.3g}",
        )
    return count
