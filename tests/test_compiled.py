"""Compiled steps: used where they pay and are right, and the eager ones everywhere else."""

import json
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acn_cl.runner import run
from acn_cl.spec import Experiment
from acn_cl.training import stack
from acn_cl.training.compiled import AGREES, NOISE, Compiler, distance
from acn_cl.training.per_run import OneByOne, Vmapped
from acn_cl.training.stack import StackSession
from tests.test_stack import FIXED, Keeps, farthest

WAYS = {"one by one": OneByOne, "vmapped": Vmapped}
SI = {"name": "si", "lambda": 10.0}


class Backend:
    """A compiler that counts its graphs and hands on what they give; ``spoils`` changes the list of results."""

    def __init__(self, spoils=lambda results: results):
        torch._dynamo.reset()
        self.graphs, self._spoils = 0, spoils

    def __call__(self, graph, example_inputs):
        self.graphs += 1
        return lambda *inputs: self._spoils(list(graph.forward(*inputs)))


def trained(tiny, way, compiler=None, runs=1, **changes):
    """The final weights of stacked runs of ``tiny``, and what was noted."""
    notes = []
    if compiler is not None:
        compiler._note = notes.append
    experiment = Experiment(**tiny(**({"strategy": SI, "stream": FIXED} | changes)))
    session = StackSession([(experiment, seed) for seed in range(runs)])
    session.train([Keeps() for _ in range(runs)], choose=lambda *_: way(compiler))
    return session.runs, notes


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_compiled_steps_give_the_eager_ones_numbers(tiny, double, way):
    backend = Backend()
    runs, notes = trained(tiny, way, Compiler(backend), runs=2)
    expected, _ = trained(tiny, way, runs=2)
    assert (backend.graphs, notes) == (2, []), "the whole batch and the last, smaller one"
    for one, other in zip(runs, expected, strict=True):
        assert one.compiled
        assert not other.compiled
        assert farthest(one.weights, other.weights) < 1e-10


def wrong(results):
    """The second-largest result is lost."""
    largest = sorted(range(len(results)), key=lambda i: results[i].numel() if results[i] is not None else 0)[-2]
    results[largest] = torch.zeros_like(results[largest])
    return results


def no_number(results):
    return [None if result is None else result * torch.nan for result in results]


@pytest.mark.parametrize("spoils", [wrong, no_number])
@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_code_that_is_wrong_is_not_used(tiny, double, way, spoils):
    """As g++ 12.2 makes it for bf16 weight gradients of some sizes: finite numbers, or none, and no error."""
    runs, notes = trained(tiny, way, Compiler(Backend(spoils)))
    expected, _ = trained(tiny, way)
    assert farthest(runs[0].weights, expected[0].weights) == 0
    assert not runs[0].compiled
    assert len(notes) == 2
    assert all("computed eagerly: compiled, their gradients are off by" in note for note in notes)


def test_a_compiler_that_fails_is_asked_once(tiny, double):
    def broken(graph, example_inputs):
        asked.append(graph)
        raise RuntimeError("g++: not\nfound")

    torch._dynamo.reset()
    asked = []
    runs, (note,) = trained(tiny, OneByOne, Compiler(broken))
    assert "g++: not found" in note
    assert len(asked) == 1
    assert not runs[0].compiled


def test_being_out_of_memory_is_no_failure_of_the_compiler(tiny, double):
    """The stack is to be halved, and not to go on eagerly, which takes more memory still."""

    def full(results):
        raise torch.OutOfMemoryError("CUDA out of memory (injected)")

    runs, notes = trained(tiny, Vmapped, Compiler(Backend(full)))
    assert isinstance(runs[0].failure, torch.OutOfMemoryError)
    assert notes == []


def test_a_sweep_of_many_sizes_compiles_all_of_them(tiny, double):
    """Beyond eight graphs of one function torch gives up, and raises."""
    backend = Backend()
    for width in range(4, 10):
        _, notes = trained(tiny, OneByOne, Compiler(backend), backbone={"name": "ac_mixer", "depth": 1, "width": width})
        assert notes == []
    assert backend.graphs == 12


class Counts(OneByOne):
    """Remembers how many batches of each size it was told of, and how many came."""

    told, came = Counter(), Counter()

    def prepared(self, loss, calls):
        self.told += calls
        eager = super().prepared(loss, calls)

        def step(moved, fixed, *inputs):
            self.came[inputs[0].shape[1]] += 1
            return eager(moved, fixed, *inputs)

        return step


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"accumulate": 3},
        {"epochs": 3, "batch_size": 7},
        {"stream": FIXED | {"scenario": "class-incremental"}},
        {"stream": FIXED | {"scenario": "domain-incremental"}},
    ],
    ids=str,
)
def test_what_is_said_to_come_comes(tiny, monkeypatch, changes):
    monkeypatch.setattr(Counts, "told", Counter())
    monkeypatch.setattr(Counts, "came", Counter())
    trained(tiny, Counts, **changes)
    assert Counts.told == Counts.came
    assert len(Counts.came) > 1, "a last, smaller batch"


def test_only_sizes_that_come_often_are_compiled(tiny, double):
    backend = Backend()
    came = Counter()

    class Spy(OneByOne):
        def prepared(self, loss, calls):
            came.update(calls)
            return super().prepared(loss, calls)

    (one,), _ = trained(tiny, Spy, Compiler(backend, often=9))
    rare, frequent = sorted(came.values())
    assert rare < 9 <= frequent
    assert backend.graphs == 1
    assert one.compiled
    (one,), _ = trained(tiny, Spy, Compiler(backend, often=frequent + 1))
    assert backend.graphs == 1
    assert not one.compiled


@pytest.mark.parametrize("compiles", [True, False])
def test_the_run_folder_says_whether_steps_were_compiled(tiny, tmp_path, monkeypatch, compiles):
    way = OneByOne(Compiler(Backend()) if compiles else None)
    monkeypatch.setattr(stack.StackSession.train, "__defaults__", (None, None, lambda *_: way))
    run(Experiment(**tiny(stream=FIXED, engine="stacked")), tmp_path)
    (file,) = tmp_path.glob("*/seed-*/spec.json")
    assert json.loads(file.read_text())["compiled"] is compiles


@given(
    st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=4), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_distance_is_the_formula_worked_out_number_by_number(values, random):
    expected = [[1.0, *row] for row in values]  # not all zero
    found = [[x + random.uniform(-1, 1) for x in row] for row in expected]

    def norm(row):
        return sum(x * x for x in row) ** 0.5

    whole = norm([x for row in expected for x in row])
    by_hand = max(
        norm([x - y for x, y in zip(f, e, strict=True)]) / (norm(e) + NOISE * whole)
        for f, e in zip(found, expected, strict=True)
    )
    tensors = [[torch.tensor(row, dtype=torch.float64) for row in rows] for rows in (found, expected)]
    assert distance(*tensors) == pytest.approx(by_hand)


def test_a_number_that_is_none_agrees_with_nothing():
    one, none = [torch.ones(2), torch.ones(3)], [torch.ones(2), torch.full((3,), torch.nan)]
    for pair in ((one, none), (none, one)):
        assert not distance(*pair) <= AGREES


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["ac_mixer", "res_mixer"])
def test_steps_in_bf16_are_right_whatever_the_compiler_makes_of_them(tiny, backbone):
    """The sizes of the quick recipe, whose last batch of one image g++ 12.2 compiles wrongly."""
    section = {"name": backbone, "depth": 2, "width": 64, "patch": 2, "tokens_hidden": 32, "channels_hidden": 128}
    changes = {"backbone": section, "precision": "bf16", "batch_size": 3, "stream": FIXED | {"stop_after": 1}}
    torch._dynamo.reset()
    (one,), notes = trained(tiny, OneByOne, Compiler(), **changes)
    (other,), _ = trained(tiny, OneByOne, **changes)
    assert one.compiled or notes
    whole = [torch.cat([tensor.flatten() for tensor in run.weights.values()]) for run in (one, other)]
    assert distance([whole[0]], [whole[1]]) < 0.1
