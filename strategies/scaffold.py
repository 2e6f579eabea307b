"""A strategy of one's own to begin with: a plug-in that works, and its test."""

import importlib.util
import keyword
import re
from pathlib import Path

from acn_cl.errors import UserError

PLUGIN = '''\
"""{title}: what it does, in a sentence. Author, "Title", year, arXiv link."""
import torch
from acn_cl.strategies.plugin import StrategyPlugin


class {title}(StrategyPlugin):
    """From the second experience on, each step is followed by one towards where the backbone began the experience."""

    moves = "the current head"  # or "every head seen"
    inert = {{"strength": 0.0}}  # with these options it is naive, bit for bit
    in_parts = True  # it looks at no batch, so that several processes may share each (docs/data_parallel.md)
    keeps_weights = 1  # state() holds at most one copy of the network

    def __init__(self, *, strength: float = 0.01) -> None:
        super().__init__()
        self.strength, self.start = strength, {{}}

    def before_training_exp(self, strategy, **_):
        if self.begins(strategy):  # False after a resume: load_state has brought `start` then
            self.start = {{n: p.detach().clone() for n, p in strategy.model.backbone.named_parameters()}}

    @torch.no_grad()
    def after_update(self, strategy, **_):
        for name, parameter in strategy.model.backbone.named_parameters() if self.strength and self.begun > 0 else ():
            parameter.lerp_(self.start[name], self.strength)

    def state(self):
        return super().state() | self.start

    def load_state(self, state):
        super().load_state(state)
        self.start = {{name: tensor for name, tensor in state.items() if name != "begun"}}
'''

TEST = '''\
"""The conformance kit on {title}: `python -m pytest test_{module}.py`. Write what only it must do below."""

import pytest

from acn_cl.strategies.testing import CHECKS, Subject

SUBJECT = Subject("{module}:{title}", {{"strength": 0.1}})


@pytest.mark.parametrize("check", CHECKS)
def test_it_does_what_it_says(check):
    if nothing_to_check := CHECKS[check](SUBJECT):
        pytest.skip(nothing_to_check)
'''


def new_strategy(name: str, folder: Path) -> list[Path]:
    """Write a working strategy and its test.

    Args:
        name: ``my-method`` gives ``my_method.py`` with the class ``MyMethod``.
        folder: where; it must be there. A spec names the strategy ``my_method:MyMethod`` when started from it.

    Returns:
        the two files.

    Raises:
        UserError: the name makes no module, another module has it, or a file is there already.
    """
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)
    module, title = "_".join(words).lower(), "".join(word[0].upper() + word[1:] for word in words)
    if not title.isidentifier() or keyword.iskeyword(module) or re.search(r"[^A-Za-z0-9_-]", name):
        raise UserError(f"{name!r} makes no name of a module; use letters, digits and hyphens, as in my-method")
    files = [folder / f"{module}.py", folder / f"test_{module}.py"]
    for path in files:
        if path.exists():
            raise UserError(f"{path} is there already; choose another name, or remove it")
    if importlib.util.find_spec(module) is not None:
        raise UserError(f"{module} is the name of an installed module; choose another one")
    for path, text in zip(files, (PLUGIN, TEST), strict=True):
        path.write_text(text.format(module=module, title=title), encoding="utf-8")
    return files
