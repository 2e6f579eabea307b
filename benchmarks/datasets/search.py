"""Where data sets are looked for: the folders of ``ACN_CL_DATA``, in every layout that people have."""

import os
from collections.abc import Iterator
from pathlib import Path

from acn_cl.benchmarks.datasets.folder import find_folder
from acn_cl.benchmarks.datasets.idx import find_idx
from acn_cl.benchmarks.datasets.parquet import find_parquet
from acn_cl.benchmarks.datasets.pickles import find_pickles
from acn_cl.benchmarks.datasets.source import Place, Source
from acn_cl.benchmarks.datasets.table import DatasetInfo
from acn_cl.errors import UserError

DEFAULT_FOLDER = Path("~/.cache/acn_cl")
_FINDERS = (find_pickles, find_idx, find_parquet, find_folder)


def data_folders() -> tuple[Path, ...]:
    """The folders of ``ACN_CL_DATA`` (a path list), or ``~/.cache/acn_cl``."""
    listed = [entry for entry in os.environ.get("ACN_CL_DATA", "").split(os.pathsep) if entry]
    return tuple(Path(entry).expanduser() for entry in listed or [str(DEFAULT_FOLDER)])


def find_source(info: DatasetInfo) -> Source | None:
    """The data set in the first folder and layout that has it; None where no folder does.

    Raises:
        UserError: it is there, but not whole.
    """
    for place in _places(info):
        for find in _FINDERS:
            source = find(info, place)
            if source is not None:
                return source
    return None


def require_source(info: DatasetInfo, download: bool = False) -> Source:
    """As :func:`find_source`; downloads where that is asked for.

    Raises:
        UserError: it is nowhere (the message says where it was looked for and how to get it), or it is not whole.
    """
    source = find_source(info)
    if source is None and download:
        from acn_cl.benchmarks.datasets.download import download_to

        download_to(data_folders()[0], info)
        source = find_source(info)
    if source is None:
        raise UserError(_not_found(info))
    return source


def _places(info: DatasetInfo) -> Iterator[Place]:
    for root in data_folders():
        if not root.is_dir():
            continue
        yield Place(root, root, named=root.name in info.folders)
        for name in info.folders:
            if (root / name).is_dir():
                yield Place(root, root / name, named=True)
        for repository in info.hub:
            cached = root / f"datasets--{repository.replace('/', '--')}" / "snapshots"
            for snapshot in sorted(cached.glob("*/")):
                yield Place(root, snapshot, named=True)


def _not_found(info: DatasetInfo) -> str:
    looked = ", ".join(str(folder) for folder in data_folders())
    get = (
        "set download: true to let torchvision fetch it"
        if info.torchvision
        else f"get it from {info.url} (torchvision cannot download it)"
    )
    return (
        f"data set {info.name!r} not found in {looked}; known layouts: torchvision's own folder, Hugging Face parquet "
        f"in {info.folders[0]}/, image folders in {info.folders[0]}/; {get}, or put its folder's parent in ACN_CL_DATA"
    )
