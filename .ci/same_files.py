"""Hold a wheel's files against the checkout's: a package left out of pyproject.toml is a file left out of the wheel."""

import sys
from pathlib import Path

wheel = Path(sys.argv[1]) / "acn_cl"
checkout = {
    path.relative_to(root if folder == "acn_cl" else root.parent)
    for folder in ("acn_cl", "strategies", "benchmarks", "reports")
    for root in [Path(folder)]
    for path in root.rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}
packed = {path.relative_to(wheel) for path in wheel.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
missing = sorted(map(str, checkout - packed))
sys.exit(f"not in the wheel: {', '.join(missing)}" if missing else 0)
