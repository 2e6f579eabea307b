"""The architecture, held by reading the sources: which module may import which, and what loads slowly."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ["spec", "backbones", "depth", "training", "runner", "cli"]
"""Inside the core, from the bottom to the top; each may import itself and what stands before it."""
BASE = {
    "assigning", "errors", "tables", "seeding", "spec", "specfile", "recipe", "runs", "search",
    "metrics", "stats", "theory", "__init__",
}  # fmt: skip
TOP = {
    "__main__": "cli",
    "adaptive": "runner",
    "bench": "cli",
    "bookkeeping": "runner",
    "choosing": "runner",
    "display": "cli",
    "doctor": "cli",
    "executors": "runner",
    "folders": "runner",
    "in_step": "runner",
    "overview": "cli",
    "share": "runner",
    "together": "runner",
    "trainer": "runner",
}
AVALANCHE_IN = ("strategies/", "benchmarks/streams/", "acn_cl/training/")


def sources():
    folders = ("acn_cl", "strategies", "benchmarks", "reports")
    return [path.relative_to(ROOT) for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imports(path):
    """Every module that a file imports, anywhere in it, type checking left out."""
    tree = ast.parse((ROOT / path).read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module


def part_of(module):
    """``acn_cl.training.heads`` -> ``training``."""
    return module.split(".")[1] if module.startswith("acn_cl.") else None


def level(part):
    return 0 if part in BASE else LAYERS.index(TOP.get(part, part))


@pytest.mark.parametrize("path", sources(), ids=str)
def test_imports_point_one_way(path):
    package = path.parts[0] if path.parts[0] != "acn_cl" else path.with_suffix("").parts[1]
    for module in imports(path):
        imported = part_of(module)
        if imported is None:
            continue
        if package in ("strategies", "benchmarks", "reports"):
            allowed = {
                "strategies": {"strategies", "training", "backbones", "depth"} | BASE,
                "benchmarks": {"benchmarks", "strategies"} | BASE,
                "reports": {"reports", "depth"} | BASE,
            }[package]
            assert imported in allowed, f"{path} imports {module}"
        elif path.name != "cli.py":
            assert imported not in ("strategies", "benchmarks", "reports"), (
                f"{path} imports {module}: name it in a table"
            )
            assert level(imported) <= level(package), f"{path} imports {module}, which lies above it"


@pytest.mark.parametrize("path", sources(), ids=str)
def test_avalanche_is_imported_where_it_is_used_and_nowhere_else(path):
    if any(module.split(".")[0] == "avalanche" for module in imports(path)):
        assert str(path).startswith(AVALANCHE_IN), f"{path} imports avalanche"


@pytest.mark.parametrize("path", [p for p in sources() if p.parts[0] == "strategies"], ids=str)
def test_a_regularisers_mathematics_knows_no_loop(path):
    if path.name in ("si.py", "ewc.py", "mas.py", "l2.py"):
        assert not [m for m in imports(path) if m.startswith(("avalanche", "acn_cl.training"))]


@pytest.mark.parametrize(
    "module",
    ["acn_cl", "acn_cl.spec", "acn_cl.recipe", "acn_cl.runs.load", "acn_cl.metrics", "acn_cl.stats", "acn_cl.theory",
     "acn_cl.reports", "acn_cl.depth.effective", "acn_cl.backbones.presets", "acn_cl.strategies.table",
     "acn_cl.benchmarks.streams.table", "acn_cl.benchmarks.streams.build", "acn_cl.cli",
     "acn_cl.executors.table", "acn_cl.executors.worker"],
)  # fmt: skip
def test_these_load_no_torch(module):
    code = f"import sys, {module}\nassert 'torch' not in sys.modules and 'avalanche' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=ROOT)


def test_nobody_imports_the_top_level_folders_by_their_own_names():
    own = {"strategies", "benchmarks", "reports", "tests"}
    assert not [(str(path), module) for path in sources() for module in imports(path) if module.split(".")[0] in own]
