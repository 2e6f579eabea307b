"""The table of streams. Adding one is one function in ``plans.py`` and a line here; imports no torch.

A stream of somebody's own is named in a spec by its dotted path, ``my_lab.streams:evens_then_odds`` (docs/data.md).
"""

from typing import Annotated

from pydantic import Field

from acn_cl.benchmarks.streams.check import check_stream as check_stream
from acn_cl.benchmarks.streams.check import classes_per_experience as classes_per_experience
from acn_cl.benchmarks.streams.check import dataset_of as dataset_of
from acn_cl.benchmarks.streams.check import image_shape as image_shape
from acn_cl.benchmarks.streams.check import plan_of as plan_of
from acn_cl.benchmarks.streams.check import training_defaults as training_defaults
from acn_cl.tables import Entry, Settings

_PLANS = "acn_cl.benchmarks.streams.plans"


class JointSettings(Settings):
    """Keys of ``joint-*``."""

    classes: Annotated[int, Field(strict=True, ge=1)] | None = None
    """The first so many classes of the class order; null: all."""


class RotatedSettings(Settings):
    """Keys of ``rotated-*``."""

    degrees: tuple[Annotated[float, Field(ge=-180, le=180)], ...] | None = None
    """An angle an experience, counter-clockwise; null: spread evenly over a half turn."""


class FewShotSettings(Settings):
    """Keys of ``few-shot-*``."""

    full_first: bool = True
    """Whether the first experience keeps all its images."""


class FolderSettings(Settings):
    """Keys of ``split-folder``."""

    folder: str
    """An image folder with train/ and val/ or test/, each with a folder a class."""
    size: Annotated[int, Field(strict=True, ge=4, le=1024)] = 64
    """Pixels a side that its images are brought to."""


def _split(dataset: str, experiences: int) -> Entry:
    return Entry(
        target=f"{_PLANS}:split",
        about=f"{dataset} in disjoint experiences of classes",
        fixed={"dataset": dataset},
        defaults={"experiences": experiences, "scenario": "task-incremental"},
    )


def _online(dataset: str, experiences: int) -> Entry:
    return Entry(
        target=f"{_PLANS}:split",
        about=f"{dataset} in disjoint experiences of classes, each image seen once, in small batches",
        fixed={"dataset": dataset, "one_pass": True},
        defaults={"experiences": experiences, "scenario": "class-incremental"},
    )


def _joint(dataset: str) -> Entry:
    return Entry(
        target=f"{_PLANS}:joint",
        about=f"{dataset} in one experience, with all its classes or the first C of them",
        settings=JointSettings,
        fixed={"dataset": dataset},
        defaults={"experiences": 1, "scenario": "class-incremental"},
    )


def _permuted(dataset: str) -> Entry:
    return Entry(
        target=f"{_PLANS}:permuted",
        about=f"{dataset}, each experience under another permutation of the pixels",
        fixed={"dataset": dataset},
        defaults={"experiences": 10, "scenario": "domain-incremental", "class_order": "fixed"},
    )


def _rotated(dataset: str) -> Entry:
    return Entry(
        target=f"{_PLANS}:rotated",
        about=f"{dataset}, each experience turned by another angle",
        settings=RotatedSettings,
        fixed={"dataset": dataset},
        defaults={"experiences": 10, "scenario": "domain-incremental", "class_order": "fixed"},
    )


STREAMS: dict[str, Entry] = {
    "split-digits": _split("digits", 5),
    "split-mnist": _split("mnist", 5),
    "split-fashion-mnist": _split("fashion-mnist", 5),
    "split-cifar10": _split("cifar10", 5),
    "split-cifar100": _split("cifar100", 20),
    "split-tiny-imagenet": _split("tiny-imagenet", 10),
    "split-imagenet": _split("imagenet", 10),
    "split-folder": Entry(
        target=f"{_PLANS}:split",
        about="any image folder in disjoint experiences of classes",
        settings=FolderSettings,
        defaults={"experiences": 5, "scenario": "task-incremental"},
    ),
    "split-cifar100-coarse": Entry(
        target=f"{_PLANS}:coarse",
        about="cifar100's 20 super-classes, each experience through another of their classes",
        fixed={"dataset": "cifar100"},
        defaults={"experiences": 5, "scenario": "domain-incremental"},
    ),
    "permuted-digits": _permuted("digits"),
    "permuted-mnist": _permuted("mnist"),
    "rotated-digits": _rotated("digits"),
    "rotated-mnist": _rotated("mnist"),
    "joint-digits": _joint("digits"),
    "joint-mnist": _joint("mnist"),
    "joint-fashion-mnist": _joint("fashion-mnist"),
    "joint-cifar10": _joint("cifar10"),
    "joint-cifar100": _joint("cifar100"),
    "joint-tiny-imagenet": _joint("tiny-imagenet"),
    "joint-imagenet": _joint("imagenet"),
    "online-digits": _online("digits", 5),
    "online-mnist": _online("mnist", 5),
    "online-cifar10": _online("cifar10", 5),
    "online-cifar100": _online("cifar100", 20),
    "online-tiny-imagenet": _online("tiny-imagenet", 10),
    "few-shot-cifar100": Entry(
        target=f"{_PLANS}:few_shot",
        about="cifar100: 60 classes in full, then 8 experiences of 5 classes with 5 images each",
        settings=FewShotSettings,
        fixed={"dataset": "cifar100"},
        defaults={"experiences": 9, "first": 60, "images_per_class": 5, "scenario": "class-incremental"},
    ),
}
