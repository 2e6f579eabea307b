"""acn_cl: continual learning, seen through depth.

The names below are the public Python interface; each is imported when first used, so that
``import acn_cl`` itself loads neither torch nor Avalanche.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if not (Path(__path__[0]) / "benchmarks").is_dir():
    # A checkout keeps strategies/, benchmarks/ and reports/ at its top level; a wheel keeps them inside.
    __path__.append(str(Path(__path__[0]).parent))

if TYPE_CHECKING:
    from acn_cl.backbones.build import build_backbone as build_backbone
    from acn_cl.benchmarks.streams.build import build_stream as build_stream
    from acn_cl.runner import run as run
    from acn_cl.runs.load import load_runs as load_runs
    from acn_cl.spec import Experiment as Experiment
    from acn_cl.strategies.build import build_strategy as build_strategy

_WHERE = {
    "Experiment": "acn_cl.spec",
    "build_backbone": "acn_cl.backbones.build",
    "build_stream": "acn_cl.benchmarks.streams.build",
    "build_strategy": "acn_cl.strategies.build",
    "load_runs": "acn_cl.runs.load",
    "run": "acn_cl.runner",
}

__all__ = ["Experiment", "__version__", "build_backbone", "build_strategy", "build_stream", "load_runs", "run"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'acn_cl' has no attribute {name!r}")
