"""A stream as an Avalanche benchmark, so that any Avalanche strategy, plug-in or metric takes it."""

from typing import Any

import torch
from avalanche.benchmarks.scenarios.deprecated.classification_scenario import GenericCLScenario
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_classification_dataset
from torch.utils.data import Dataset

from acn_cl.benchmarks.streams.stream import Part, Stream
from acn_cl.benchmarks.streams.transforms import torchvision_transform


class PartDataset(Dataset[tuple[torch.Tensor, int]]):
    """A part as a map-style torch data set: uint8 tensors ``(C, H, W)`` and labels."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self.targets: list[int] = part.labels.tolist()

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(self._part.images[row]), self.targets[row]


def to_avalanche(stream: Stream) -> Any:
    """An Avalanche ``GenericCLScenario``, the class behind ``nc_benchmark``'s NCScenario.

    It has a ``train_stream``, a ``test_stream`` and, where parts are held out, a ``valid_stream``. Their experiences
    give ``dataset``, ``task_label``, ``classes_in_this_experience`` and the other class timelines, all in the stream's
    label space; their data sets the transform groups ``train`` and ``eval``. The newer ``benchmark_from_datasets``
    gives its classes as sets, which Avalanche's own MultiHeadClassifier cannot take (0.6.0).
    """
    groups = {
        group: (torchvision_transform(stream.info, train=group == "train", augment=stream.augment), None)
        for group in ("train", "eval")
    }

    def dataset(part: Part, index: int, group: str) -> Any:
        return _make_taskaware_classification_dataset(
            PartDataset(part),
            transform_groups=groups,
            initial_transform_group=group,
            task_labels=stream.task_label(index),
        )

    definitions = {
        "train": ([dataset(e.train, e.index, "train") for e in stream.experiences],),
        "test": ([dataset(e.test, e.index, "eval") for e in stream.experiences],),
    }
    held_out = [dataset(e.validation, e.index, "eval") for e in stream.experiences if e.validation is not None]
    if held_out:
        definitions["valid"] = (held_out,)
    return GenericCLScenario(stream_definitions=definitions)
