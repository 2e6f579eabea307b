"""What works here, what does not, and how to mend it."""

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from acn_cl.runs.environment import versions
from acn_cl.tables import resolve


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        what: its name.
        good: whether it works; ``None``: works, with less than there could be.
        says: what was found.
        mend: what to do, if anything.
    """

    what: str
    good: bool | None
    says: str
    mend: str = ""


def examine(out: Path) -> Iterator[Finding]:
    """Look at Python, packages, devices, data sets and the folders that are written to."""
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding("python", supported, sys.version.split()[0], "" if supported else "use Python 3.11, 3.12 or 3.13")
    yield from _packages()
    yield from _devices()
    yield from _data()
    yield _writable("runs", out)
    yield _writable("cache", Path(os.environ.get("ACN_CL_CACHE", "~/.cache/acn_cl")).expanduser())


def _packages() -> Iterator[Finding]:
    found = versions()
    missing = [name for name, version in found.items() if version == "missing"]
    listed = ", ".join(f"{name} {version}" for name, version in found.items() if name != "python")
    yield Finding("packages", not missing, listed, f"pip install {' '.join(missing)}" if missing else "")
    for module in ("torch", "torchvision", "avalanche.training"):
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a broken installation raises is what we are here to tell
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            yield Finding(
                f"import {module}", False, reason, "install torch and torchvision together, then acn-cl again"
            )


def _devices() -> Iterator[Finding]:
    try:
        import torch

        from acn_cl.training.device import choose_device, choose_precision
    except Exception:  # told above
        return
    cpu = torch.device("cpu")
    fast = choose_precision("auto", cpu)
    says = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, precision auto = {fast}"
    yield Finding("cpu", True if fast == "bf16" else None, says, "" if fast == "bf16" else "no bf16 here: slower")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(index).total_memory / 1e9
            yield Finding(f"cuda:{index}", True, f"{torch.cuda.get_device_name(index)}, {memory:.0f} GB")
    else:
        yield Finding("cuda", None, "none", "" if torch.version.cuda else "this torch is built without CUDA")
    yield Finding("device auto", True, str(choose_device("auto")))


def _data() -> Iterator[Finding]:
    for found in resolve("acn_cl.benchmarks.datasets.inspect:list_datasets")():
        what = f"data {found.info.name}"
        if found.problem:
            yield Finding(what, False, found.problem, f"acn-cl data verify {found.info.name}")
        elif found.layout:
            yield Finding(what, True, f"{found.layout}, {found.folder}")
        else:
            yield Finding(what, None, "not found", "put its folder on ACN_CL_DATA, or set stream.download: true")


def _writable(what: str, folder: Path) -> Finding:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Finding(f"write {what}", False, f"{there}: {error.strerror}", "choose another folder")
    return Finding(f"write {what}", True, str(folder))
