"""A run's weights as safetensors: a plain ``state_dict``, and nothing that could run."""

from pathlib import Path
from typing import TYPE_CHECKING

from acn_cl.errors import UserError
from acn_cl.runs.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"


def save_weights(folder: Path, experiences: int, state: "dict[str, Tensor]") -> Path:
    """Write the final ``state_dict`` of a run into ``checkpoints/<experiences>-0/`` and return the file's path."""
    from safetensors.torch import save_file

    path = folder / "checkpoints" / f"{experiences}-0" / WEIGHTS
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda part: save_file(state, part))
    return path


def load_weights(folder: Path) -> "dict[str, Tensor]":
    """The final weights of the run in ``folder`` as a ``state_dict`` (name -> CPU tensor).

    Names begin with ``backbone.`` or ``heads.blocks.<experience>.``.

    Raises:
        UserError: there are none, or the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    found = sorted(
        (folder / "checkpoints").glob(f"*/{WEIGHTS}"), key=lambda path: [int(n) for n in path.parent.name.split("-")]
    )
    if not found:
        raise UserError(f"{folder}: no weights (checkpoints/*/{WEIGHTS})")
    try:
        return load_file(found[-1])
    except (SafetensorError, OSError) as error:
        raise UserError(f"{found[-1]}: damaged ({error})") from None
