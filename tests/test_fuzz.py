"""Any bytes at all in a spec give a clean error or a recipe: no traceback, no hang, no code.

`FUZZ_EXAMPLES=4000 python -m pytest tests/test_fuzz.py` is the long form. What runs wrote: tests/test_fuzz_report.py.
"""

import contextlib
import os

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acn_cl.errors import UserError
from acn_cl.recipe import load_recipe
from acn_cl.spec import Experiment

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=5000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

SPEC = """\
name: mine
stream: {name: split-digits, experiences: 5, class_order: fixed}
backbone: {name: ac_mixer, depth: 2, width: 16, patch: 4}
strategy: {name: si, lambda: 1.0}
optimizer: {lr: 1.0e-3, state: carry}
epochs: 1
seeds: 0-1
evaluate_every: {steps: 3}
pin: {class_order: 3}
matrix:
  backbone.depth: [1, 2]
  strategy: [naive, {name: ewc}]
"""
KEYS = [
    "name",
    "stream",
    "backbone",
    "strategy",
    "epochs",
    "seeds",
    "matrix",
    "lambda",
    "depth",
    "device",
    "pin",
    "loss",
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["si", "0-3", "acn", "a:b"]),
)
TROUBLE = [b"{", b"- ", b": ", b"\n", b"&a ", b"*a", b"!!x ", b"9" * 400]
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def damaged(draw, original: bytes):
    """``original`` with pieces cut out, doubled and overwritten."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(0, 12))
        piece = draw(
            st.binary(max_size=6) | st.sampled_from([b"{", b"- ", b": ", b"\n", b"&a ", b"*a", b"!!x ", b"9" * 400])
        )
        data[at : at + length] = piece
    return bytes(data)


def check_recipe(path, data):
    path.write_bytes(data)
    with contextlib.suppress(UserError):
        load_recipe(str(path))


@fuzz
@given(data=damaged(SPEC.encode()))
def test_a_damaged_spec(tmp_path, data):
    check_recipe(tmp_path / "mine.yaml", data)


@fuzz
@given(tree=TREES, changed=st.sampled_from([*sorted(Experiment.model_fields), "matrix"]))
def test_any_value_for_any_key(tmp_path, tree, changed):
    spec = yaml.safe_load(SPEC) | {changed: tree}
    check_recipe(tmp_path / "mine.yaml", yaml.safe_dump(spec, allow_unicode=True).encode())


@fuzz
@given(
    key=st.text(max_size=12) | st.sampled_from(["strategy.lambda", "epochs", "backbone.depth", "stream"]), tree=TREES
)
def test_any_override(key, tree):
    with contextlib.suppress(UserError):
        load_recipe("quick", [f"{key}={yaml.safe_dump(tree, default_flow_style=True)}"])


@given(st.text())
def test_an_error_is_one_line_whatever_the_names_in_it(text):
    line = str(UserError(f"no file {text}"))
    assert line.isprintable() and line.startswith("no file")
