"""The plan of each kind of stream: which classes, seen through which pixels, make up each experience.

A plan needs no data, so ``--dry-run`` can print one. A new stream is one function here and a line in the table.
"""

from dataclasses import dataclass
from typing import Any

from acn_cl.benchmarks.datasets.classes import CIFAR100_COARSE
from acn_cl.benchmarks.datasets.table import DatasetInfo
from acn_cl.benchmarks.streams import draws
from acn_cl.benchmarks.streams.pixels import PixelMap, permutation, rotation
from acn_cl.benchmarks.streams.sizes import class_sizes
from acn_cl.errors import SpecError
from acn_cl.seeding import Seeds


@dataclass(frozen=True, eq=False)
class Slice:
    """The plan of one experience."""

    classes: tuple[int, ...]
    """Original class ids, in the order of the stream."""
    labels: tuple[int, ...] | None = None
    """The ``per-experience`` label of each class; None: its place in ``classes``."""
    pixels: PixelMap | None = None
    """What is done to every image, training and test alike."""
    full: bool = False
    """Whether the experience keeps all its images where ``images_per_class`` thins out the others."""


Plan = tuple[Slice, ...]


@dataclass(frozen=True)
class Task:
    """What every plan is made from, beside the keys of the spec's section."""

    info: DatasetInfo
    order: tuple[int, ...]
    """Original class ids, as ``class_order`` says."""
    seeds: Seeds


def split(task: Task, *, experiences: int, first: int | None, **_: Any) -> Plan:
    """The classes in their order, cut into disjoint experiences (van de Ven et al., Nat. Mach. Intell. 2022)."""
    plan, start = [], 0
    for size in class_sizes(len(task.order), experiences, first):
        plan.append(Slice(task.order[start : start + size]))
        start += size
    return tuple(plan)


def few_shot(task: Task, *, full_first: bool, **keys: Any) -> Plan:
    """A split whose first experience keeps all its images (Tao et al., arXiv:2004.10956)."""
    base, *sessions = split(task, **keys)
    return (Slice(base.classes, full=full_first), *sessions)


def joint(task: Task, *, experiences: int, first: int | None, classes: int | None, **_: Any) -> Plan:
    """One experience with the first ``classes`` classes of the order (all of them where that is None)."""
    if experiences != 1:
        raise SpecError(("experiences",), f"a joint stream has 1 experience, not {experiences}")
    _refuse_first(first, "joint")
    if classes is not None and classes > task.info.classes:
        raise SpecError(("classes",), f"{task.info.name} has {task.info.classes} classes, not {classes}")
    return (Slice(task.order[:classes]),)


def permuted(task: Task, *, experiences: int, first: int | None, **_: Any) -> Plan:
    """All classes in every experience, each time under another permutation of the pixels.

    As Avalanche's PermutedMNIST: the first experience is permuted too.
    """
    _refuse_first(first, "permuted")
    return tuple(
        Slice(task.order, pixels=permutation(task.info.image_size, draws.pixels(task.seeds, index)))
        for index in range(experiences)
    )


def rotated(task: Task, *, experiences: int, first: int | None, degrees: tuple[float, ...] | None, **_: Any) -> Plan:
    """All classes in every experience, each time turned by another angle, as Avalanche's RotatedMNIST.

    ``degrees``: the angles, counter-clockwise; None: spread evenly over a half turn, from 0.
    """
    _refuse_first(first, "rotated")
    angles = tuple(180 * index / experiences for index in range(experiences)) if degrees is None else degrees
    if len(angles) != experiences:
        wanted = len(angles)
        raise SpecError(("degrees",), f"{wanted} angles for {experiences} experiences; set experiences: {wanted}")
    return tuple(Slice(task.order, pixels=rotation(task.info.image_size, angle)) for angle in angles)


def coarse(task: Task, *, experiences: int, first: int | None, **_: Any) -> Plan:
    """CIFAR-100's 20 super-classes in every experience, each time seen through another of their five classes.

    With one experience instead of five, it sees a super-class through all of them.
    """
    _refuse_first(first, "coarse")
    members: dict[int, list[int]] = {}
    for original in task.order:
        members.setdefault(CIFAR100_COARSE[original], []).append(original)
    plan, start = [], 0
    for size in class_sizes(5, experiences):
        chosen = {original for five in members.values() for original in five[start : start + size]}
        classes = tuple(original for original in task.order if original in chosen)
        plan.append(Slice(classes, labels=tuple(CIFAR100_COARSE[original] for original in classes)))
        start += size
    return tuple(plan)


def _refuse_first(first: int | None, kind: str) -> None:
    if first is not None:
        raise SpecError(("first",), f"a {kind} stream cannot have a larger first experience; leave it out")
