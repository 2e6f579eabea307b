"""How this process was started: alone, or by torchrun as one of several that train together. Imports no torch."""

import os
from dataclasses import dataclass

from acn_cl.errors import UserError

_SET_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


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
    """What the environment says; whoever sets not all of torchrun's variables did not start several processes.

    Raises:
        UserError: one of them is not a number.
    """
    if not all(os.environ.get(name) for name in _SET_BY_TORCHRUN):
        return Launch()
    rank, size = _number("RANK"), _number("WORLD_SIZE")
    return Launch(rank, size, _number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", 1)) if size > 1 else Launch()


def _number(name: str, default: int | None = None) -> int:
    value = os.environ.get(name, default)
    try:
        return int(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UserError(f"{name}={value!r} in the environment is not a number; use torchrun, or unset it") from None
