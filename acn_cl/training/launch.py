"""How this process was started: alone, or by torchrun as one of several that train together. Imports no torch."""

import os
from dataclasses import dataclass

_SET_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_NUMBERS = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Launch:
    """This process among those of one ``torchrun``.

    Args:
        rank: its number, from 0.
        size: how many there are; 1: nothing is shared.
        local_rank: its number on its machine, from 0.
        local_size: how many there are on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def launch() -> Launch:
    """What the environment says. Where not all of torchrun's variables are there, it was not torchrun."""
    if not all(os.environ.get(name) for name in _SET_BY_TORCHRUN):
        return Launch()
    rank, size, local_rank, local_size = (int(os.environ.get(name, default)) for name, default in _NUMBERS)
    return Launch(rank, size, local_rank, local_size) if size > 1 else Launch()


def processes_of(wanted: int) -> int:
    """How many processes train a run together: those of torchrun, or as many as a spec has an executor start."""
    return max(launch().size, wanted)
