"""A run's weights as safetensors: a plain ``state_dict``, and nothing that could run."""

from pathlib import Path
from typing import TYPE_CHECKING

from acn_cl.errors import UserError
from acn_cl.runs.files import save_tensors, write_atomically
from acn_cl.runs.schema import SCHEMA_VERSION, check_version

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"


def save_weights(folder: Path, experiences: int, state: "dict[str, Tensor]") -> Path:
    """Write the final ``state_dict`` of a run into ``checkpoints/<experiences>-0/`` and return the file's path."""
    path = folder / "checkpoints" / f"{experiences}-0" / WEIGHTS
    path.parent.mkdir(parents=True, exist_ok=True)
    # One entry alone: of several, safetensors would choose the order anew each time, and the bytes would differ.
    metadata = {"schema_version": str(SCHEMA_VERSION)}
    write_atomically(path, lambda part: save_tensors(part, state, metadata))
    return path


def load_weights(folder: Path) -> "dict[str, Tensor]":
    """The final weights of the run in ``folder`` as a ``state_dict`` (name -> CPU tensor).

    Names begin with ``backbone.`` or ``heads.blocks.<experience>.``.

    Raises:
        UserError: there are none, or the file is damaged or of a later version.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    places = {path: path.parent.name.split("-") for path in (folder / "checkpoints").glob(f"*/{WEIGHTS}")}
    found = {path: [int(n) for n in place] for path, place in places.items() if all(n.isdecimal() for n in place)}
    if not found:
        raise UserError(f"{folder}: no weights (checkpoints/*/{WEIGHTS})")
    path = max(found, key=lambda path: found[path])
    try:
        with safe_open(path, framework="pt") as file:
            version = (file.metadata() or {}).get("schema_version")
        check_version(int(version) if version and version.isdecimal() else version, path)
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged ({error})") from None
