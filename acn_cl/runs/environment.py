"""What a run was made with: versions, commit. For ``spec.json`` and ``acn-cl doctor``."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("acn-cl", "torch", "torchvision", "avalanche-lib", "numpy", "scipy", "pandas", "pyarrow")


def versions() -> dict[str, str]:
    """Version of Python and of every package that moves numbers; ``missing`` where one is not installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def commit() -> str | None:
    """The git commit that the library runs from, ``-dirty`` if it was changed since; ``None`` outside a checkout."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
