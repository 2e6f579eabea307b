"""Downloading is torchvision's business, and only when it is asked for."""

from pathlib import Path

from acn_cl.benchmarks.datasets.table import DatasetInfo
from acn_cl.errors import UserError


def download_to(folder: Path, info: DatasetInfo) -> None:
    """Let torchvision download ``info`` into ``folder``, in its own layout.

    Raises:
        UserError: torchvision cannot download this set, or failed to.
    """
    if info.torchvision is None:
        raise UserError(f"torchvision cannot download {info.name!r}; get it from {info.url} and set ACN_CL_DATA")
    import torchvision.datasets

    fetch = getattr(torchvision.datasets, info.torchvision)
    try:
        fetch(root=str(folder), download=True)
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"download of {info.name!r} into {folder} failed: {reason}") from None
