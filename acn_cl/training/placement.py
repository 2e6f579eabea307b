"""Where a run's images lie: on its device, or on the host where there is no room for them."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import psutil
import torch

from acn_cl.training.launch import launch

SHARE = 0.7
"""Of the free memory that images may take: network, optimiser, strategy and a step's work space take the rest."""


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device now, for this process of those on its machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available) // launch().local_size


def fits(size: int, device: torch.device) -> bool:
    """Whether ``size`` bytes of images may lie on the device."""
    return size <= SHARE * free_memory(device)


def parts_of(stream: Any, trained: int) -> Iterator[Any]:
    """Every part that a run over the first ``trained`` experiences reads: training, test, validation."""
    for index, experience in enumerate(stream.experiences):
        parts = (experience.train if index < trained else None, experience.test, experience.validation)
        yield from (part for part in parts if part is not None)


def bytes_of(parts: Iterable[Any]) -> int:
    """Bytes of the images of some parts, uint8."""
    return sum(math.prod(part.images.shape) for part in parts)


def in_words(size: int, device: torch.device) -> str:
    """Why images are streamed, for the log."""
    return (
        f"images are streamed from the host: {size / 1e9:.2g} GB of them, and of {free_memory(device) / 1e9:.2g} GB "
        f"free on {device} they may take {SHARE:.0%}"
    )
