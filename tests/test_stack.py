"""A stacked run is the run: the same numbers alone, through Avalanche's call-backs, and in any stack."""

import copy
from functools import partial
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from acn_cl.errors import UserError
from acn_cl.spec import Experiment
from acn_cl.training.compiled import Compiler
from acn_cl.training.estimate import estimate
from acn_cl.training.interrupt import Interrupted, StopRequest
from acn_cl.training.per_run import OneByOne, Vmapped
from acn_cl.training.session import Session
from acn_cl.training.stack import StackSession
from acn_cl.training.stack_group import group
from acn_cl.training.stack_size import widest_stack
from acn_cl.training.watch import Diverged

FIRST = {"name": "split-digits", "images_per_class": 100, "stop_after": 3}
"""Three experiences of equal sizes whatever the class order is; the tests are of other sizes."""
FIXED = FIRST | {"class_order": "fixed"}
WAYS = {"one by one": lambda *_: OneByOne(), "vmapped": lambda *_: Vmapped()}


class Keeps:
    """A watcher that remembers everything it is told."""

    def __init__(self):
        self.losses, self.checkpoints, self.learned = [], [], []

    def epoch_done(self, experience, epoch, loss):
        self.losses.append((experience, epoch, loss))

    def experience_done(self, experience, results):
        self.learned.append(experience)

    def save(self, checkpoint):
        self.checkpoints.append(copy.deepcopy(checkpoint))


def alone(experiment, seed, folder, **train):
    """The run through Avalanche's call-backs: its final parameters, tables and what its watcher saw."""
    session, watcher = Session(experiment, seed, folder), Keeps()
    session.train(watcher, **train)
    return session.network.state_dict(), session.results, watcher


def stacked(jobs, way="one by one", **train):
    session = StackSession(jobs)
    watchers = [Keeps() for _ in jobs]
    session.train(watchers, choose=WAYS[way], **train)
    return session, watchers


def farthest(a, b):
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


def same_table(ours, theirs):
    """Equal counts, and equal numbers up to fp32, in which the loss of a test is taken."""
    pd.testing.assert_frame_equal(pd.DataFrame(ours), pd.DataFrame(theirs), rtol=1e-5, atol=1e-12)


def table(results, name="accuracy"):
    return [tuple(row.items()) for row in getattr(results, name)]


STRATEGIES = {
    "naive": {"name": "naive"},
    "si": {"name": "si", "lambda": 10.0},
    "si-zenke": {"name": "si", "lambda": 1.0, "dialect": "zenke"},
    "ewc": {"name": "ewc", "lambda": 100.0},
    "ewc-online": {"name": "ewc", "lambda": 100.0, "mode": "online", "decay": 0.9},
    "mas": {"name": "mas", "lambda": 1.0},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_four_stacked_runs_are_four_runs_through_avalanches_call_backs(tiny, tmp_path, double, strategy, way):
    """float64, three experiences: parameters to 1e-8; and the tables hold the same."""
    experiment = Experiment(**tiny(strategy=STRATEGIES[strategy], stream=FIXED, batch_size=32))
    session, watchers = stacked([(experiment, seed) for seed in range(4)], way)
    for run, watcher in zip(session.runs, watchers, strict=True):
        parameters, results, seen = alone(experiment, run.seed, tmp_path)
        assert farthest(run.weights, parameters) < 1e-8
        same_table(run.results.accuracy, results.accuracy)
        same_table(run.results.layers, results.layers)
        assert {"cka", "direct_gradient_share"} <= {row["quantity"] for row in run.results.layers}
        assert watcher.learned == seen.learned == [0, 1, 2]
        assert [e[:2] for e in watcher.losses] == [e[:2] for e in seen.losses]
    assert farthest(session.runs[0].weights, session.runs[1].weights) > 1e-3, "each run is its own"


@pytest.mark.parametrize(
    "changes",
    [
        {"stream": FIXED | {"scenario": "class-incremental"}},
        {"stream": FIXED | {"scenario": "class-incremental", "labels": "global"}},
        {"stream": {"name": "permuted-digits", "experiences": 3}},
        {"stream": FIXED | {"validation": 0.2, "images_per_class": 50}},
        {"optimizer": {"state": "carry"}},
        # Under AdamW, L2 pulls at directions that the loss does not depend on, by signs that are rounding's.
        {"strategy": {"name": "l2", "lambda": 0.1}, "optimizer": {"name": "sgd", "lr": 0.05}},
        {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "clip_norm": 0.5}},
        {"schedule": {"name": "cosine", "warmup_epochs": 1}, "epochs": 2},
        {"loss": {"label_smoothing": 0.1, "cutmix": 0.5}},
        {"evaluate_every": {"steps": 2}},
        {"corruptions": ["gaussian-0.1"]},
        {"backbone": {"name": "res_mixer", "depth": 2, "width": 16, "patch": 4}},
        {"backbone": {"block": "mixer", "wiring": "acn-dg", "depth": 2, "width": 16, "patch": 4, "pool": "cls"}},
        {"backbone": {"name": "ac_vit", "depth": 2, "width": 16, "patch": 4, "heads": 2}},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # attention under vmap on a CPU
@pytest.mark.parametrize("way", WAYS)
def test_whatever_the_spec_says_a_stacked_run_does_it(tiny, tmp_path, double, changes, way):
    experiment = Experiment(**tiny(**{"strategy": {"name": "si", "lambda": 10.0}, "stream": FIXED, **changes}))
    session, _ = stacked([(experiment, seed) for seed in (0, 1)], way)
    for run in session.runs:
        parameters, results, _ = alone(experiment, run.seed, tmp_path)
        assert farthest(run.weights, parameters) < 1e-8
        same_table(run.results.accuracy, results.accuracy)
        same_table(run.results.layers, results.layers)
        same_table(run.results.confusion, results.confusion)


@pytest.mark.parametrize("way", WAYS)
def test_runs_of_other_lambdas_stand_in_one_stack(tiny, tmp_path, double, way):
    jobs = [
        (Experiment(**tiny(strategy={"name": "ewc", "lambda": value}, stream=FIXED)), seed)
        for value, seed in ((1.0, 0), (1000.0, 0), (30.0, 5))
    ]
    session, _ = stacked(jobs, way)
    for run in session.runs:
        assert farthest(run.weights, alone(run.experiment, run.seed, tmp_path)[0]) < 1e-8
    assert farthest(session.runs[0].weights, session.runs[1].weights) > 1e-3


def compiles_to(graph, example_inputs):
    """A compiler that changes nothing, and counts."""
    compiles_to.graphs += 1
    return graph.forward


def test_one_compiled_step_serves_every_experience(tiny, tmp_path, double):
    """Traced as one graph, as on a GPU: the same numbers, compiled for the whole and for the last, smaller batch."""
    torch._dynamo.reset()
    compiles_to.graphs = 0
    jobs = [(Experiment(**tiny(strategy={"name": "si", "lambda": 10.0}, stream=FIXED)), seed) for seed in (0, 1)]
    session, notes = StackSession(jobs, lambda line: notes.append(line)), []
    session.train([Keeps(), Keeps()], choose=lambda *told: Vmapped(Compiler(compiles_to, note=told[-1])))
    assert notes == []
    assert compiles_to.graphs == 2
    for run in session.runs:
        assert farthest(run.weights, alone(run.experiment, run.seed, tmp_path)[0]) < 1e-8


def test_what_cannot_be_compiled_is_computed_eagerly_and_said(tiny, tmp_path, double):
    def broken(graph, example_inputs):
        raise ValueError("no compiler\nhere")

    torch._dynamo.reset()
    notes = []
    session = StackSession([(Experiment(**tiny(stream=FIXED)), 0)], notes.append)
    session.train([Keeps()], choose=lambda *told: Vmapped(Compiler(broken, note=told[-1])))
    (note,) = notes
    assert "computed eagerly" in note and "no compiler here" in note
    assert farthest(session.runs[0].weights, alone(session.runs[0].experiment, 0, tmp_path)[0]) < 1e-8


def test_augmented_colour_images_are_those_of_the_run_alone(tiny, tmp_path, double, real_data):
    """CIFAR-100's crops and flips are drawn beforehand, and from each run's own generators."""
    stream = {"name": "split-cifar100", "images_per_class": 20, "stop_after": 3}
    backbone = {"name": "ac_mixer", "depth": 1, "width": 8, "patch": 8}
    experiment = Experiment(**tiny(stream=stream, backbone=backbone, batch_size=32, epochs=2))
    session, _ = stacked([(experiment, seed) for seed in (0, 1)], "vmapped")
    for run in session.runs:
        assert farthest(run.weights, alone(experiment, run.seed, tmp_path)[0]) < 1e-8


@pytest.mark.parametrize("way", WAYS)
def test_in_fp32_one_steps_gradients_agree(tiny, tmp_path, way):
    """To 1e-5 of the largest: after one SGD step without momentum the step is the gradient."""
    stream = FIXED | {"stop_after": 1}
    experiment = Experiment(
        **tiny(stream=stream, batch_size=1000, optimizer={"name": "sgd", "lr": 1.0, "weight_decay": 0})
    )
    session, _ = stacked([(experiment, seed) for seed in range(4)], way)
    for run in session.runs:
        begun = run.build_network()
        begun.heads.grow(0, torch.device("cpu"))
        before = begun.state_dict()
        parameters, *_ = alone(experiment, run.seed, tmp_path)
        for name, now in parameters.items():
            ours, theirs = run.weights[name] - before[name], now - before[name]
            # θ itself is rounded to 6e-8 of its size, whatever the gradient is.
            assert torch.allclose(ours, theirs, atol=1e-5 * theirs.abs().max() + 1.2e-7 * now.abs().max(), rtol=0)


def test_a_run_of_the_stack_goes_on_alone_and_a_lone_run_in_a_stack(tiny, tmp_path, double):
    """Checkpoints are those of single runs, at an experience's end and in the middle of an epoch."""
    experiment = Experiment(
        **tiny(
            strategy={"name": "si", "lambda": 10.0},
            stream=FIXED,
            batch_size=32,
            epochs=2,
            checkpoint={"every_seconds": 0},
        )
    )
    jobs = [(experiment, seed) for seed in (0, 1)]
    whole, watchers = stacked(jobs)
    places = [(c.experience, c.epoch, c.batch) for c in watchers[0].checkpoints]
    assert places == [(0, 1, 0), (1, 0, 0), (1, 1, 0), (2, 0, 0), (2, 1, 0), (3, 0, 0)]
    for place in (1, 2):
        lone, results, _ = alone(experiment, 0, tmp_path, start=copy.deepcopy(watchers[0].checkpoints[place]))
        assert farthest(lone, whole.runs[0].weights) < 1e-8
        assert len(results.accuracy) == len(whole.runs[0].results.accuracy)
        same_table(results.layers, whole.runs[0].results.layers)
        _, _, seen = alone(experiment, 1, tmp_path)
        both = [watchers[0].checkpoints[place], seen.checkpoints[place]]
        again, _ = stacked(jobs, "vmapped", starts=copy.deepcopy(both))
        for run, before in zip(again.runs, whole.runs, strict=True):
            assert farthest(run.weights, before.weights) < 1e-8
            same_table(run.results.layers, before.results.layers)


class StopsAfter(StopRequest):
    """Asks to stop when it has been looked at so many times."""

    def __init__(self, looks):
        super().__init__()
        self._looks = looks
        del self.signal

    @property
    def signal(self):
        self._looks -= 1
        return 15 if self._looks < 0 else None

    @signal.setter
    def signal(self, value):
        pass

    @signal.deleter
    def signal(self):
        pass


@pytest.mark.parametrize("looks", [3, 9, 20])
def test_a_stack_that_is_stopped_anywhere_goes_on_to_the_same_numbers(tiny, double, looks):
    experiment = Experiment(**tiny(strategy={"name": "si", "lambda": 10.0}, stream=FIXED, batch_size=32, epochs=2))
    jobs = [(experiment, seed) for seed in (0, 1)]
    whole, _ = stacked(jobs)
    session, watchers = StackSession(jobs), [Keeps(), Keeps()]
    with pytest.raises(Interrupted):
        session.train(watchers, StopsAfter(looks), choose=WAYS["one by one"])
    assert all(w.checkpoints[-1].batch for w in watchers), "in the middle of an epoch"
    again, _ = stacked(jobs, starts=[w.checkpoints[-1] for w in watchers])
    for run, before in zip(again.runs, whole.runs, strict=True):
        assert farthest(run.weights, before.weights) == 0
        assert table(run.results) == table(before.results)
        assert table(run.results, "layers") == table(before.results, "layers")


class Small(OneByOne):
    """A device that is out of memory with more than ``most`` runs, once ``free`` steps are done."""

    def __init__(self, runs, most, free):
        super().__init__()
        self._broken, self._free = runs > most, free

    def gradients(self, *arguments):
        self._free -= 1
        if self._broken and self._free < 0:
            raise torch.OutOfMemoryError("CUDA out of memory (injected)")
        return super().gradients(*arguments)


@pytest.mark.parametrize("free", [0, 10])
def test_out_of_memory_halves_the_stack_and_loses_nothing(tiny, double, free):
    experiment = Experiment(**tiny(strategy={"name": "si", "lambda": 10.0}, stream=FIXED))
    jobs = [(experiment, seed) for seed in range(4)]
    whole, _ = stacked(jobs)
    notes, widths = [], []

    def choose(device, precision, runs, note):
        widths.append(runs)
        return Small(runs, 2, free)

    session = StackSession(jobs, notes.append)
    session.train([Keeps() for _ in jobs], choose=choose)
    assert widths == [4, 2, 2]
    assert notes == ["out of memory with 4 runs at once; going on with 2"]
    for run, before in zip(session.runs, whole.runs, strict=True):
        assert farthest(run.weights, before.weights) == 0
        assert table(run.results) == table(before.results)
        assert table(run.results, "layers") == table(before.results, "layers")


def test_one_run_that_does_not_fit_is_a_failure_of_its_own(tiny):
    session = StackSession([(Experiment(**tiny(stream=FIXED)), seed) for seed in (0, 1)])
    session.train([Keeps(), Keeps()], choose=lambda *_: Small(1, 0, 0))
    assert [type(run.failure) for run in session.runs] == [torch.OutOfMemoryError] * 2


class Explodes(OneByOne):
    """Gives the second run no numbers."""

    def gradients(self, *arguments):
        losses, found = super().gradients(*arguments)
        losses[1] = torch.nan
        for gradient in found:
            gradient[1] = torch.nan
        return losses, found


def test_a_run_that_diverges_ends_alone(tiny, double):
    jobs = [(Experiment(**tiny(stream=FIXED)), seed) for seed in range(3)]
    whole, _ = stacked(jobs)
    session, watchers = StackSession(jobs), [Keeps() for _ in jobs]
    session.train(watchers, choose=lambda *_: Explodes())
    assert isinstance(session.runs[1].failure, Diverged)
    assert not session.runs[1].weights
    assert watchers[1].learned == []
    for number in (0, 2):
        assert farthest(session.runs[number].weights, whole.runs[number].weights) == 0


def test_runs_of_unequal_sizes_are_refused(tiny):
    with pytest.raises(UserError, match="as many images"):
        StackSession([(Experiment(**tiny()), seed) for seed in range(3)])


def test_the_callers_random_state_is_left_alone(tiny):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    stacked([(Experiment(**tiny(stream=FIXED)), 0)])
    assert torch.equal(torch.rand(1), expected)


def grouped(jobs, sizes=lambda job: 0, widest=100):
    return group(jobs, can_stack=lambda job: True, sizes=sizes, widest=lambda job: widest)


def test_runs_that_differ_in_seed_and_lambda_are_one_stack_and_others_are_not(tiny):
    make = partial(Experiment)
    si = [make(**tiny(strategy={"name": "si", "lambda": value}, seeds=[0, 1])) for value in (0, 1, 10)]
    naive = make(**tiny(seeds=[0, 1]))
    faster = make(**tiny(optimizer={"lr": 0.1}))
    jobs = [(e, seed) for e in (*si, naive) for seed in e.seeds] + [(faster, 0)]
    assert grouped(jobs) == [[0, 1], [2, 3, 4, 5], [6, 7], [8]]
    assert grouped(jobs, widest=3) == [[0, 1], [2, 3, 4], [5], [6, 7], [8]]
    assert grouped(jobs, sizes=lambda job: job[1]) == [[0], [1], [2, 4], [3, 5], [6], [7], [8]]


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": "avalanche"},
        {"loggers": ["tensorboard"]},
        {"stream": {"name": "split-digits", "labels": "global", "scenario": "class-incremental"}},
        {"backbone": {"name": "timm:create_model"}},
    ],
    ids=str,
)
def test_what_needs_call_backs_or_shapes_of_its_own_stays_alone(tiny, changes):
    experiment = Experiment(**tiny(**changes))
    assert grouped([(experiment, 0), (experiment, 1)]) == [[0], [1]]


def test_global_labels_and_one_class_order_stack(tiny):
    fixed = Experiment(**tiny(stream={"name": "split-digits", "labels": "global", "class_order": "fixed"}))
    pinned = Experiment(**tiny(stream={"name": "split-digits", "labels": "global"}, pin={"class_order": 3}))
    assert grouped([(fixed, 0), (fixed, 1)]) == [[0, 1]]
    assert grouped([(pinned, 0), (pinned, 1)]) == [[0, 1]]


def test_every_job_is_in_one_stack(tiny):
    jobs = [
        (Experiment(**tiny(strategy={"name": "si", "lambda": v}, epochs=e)), s)
        for v in (0, 1)
        for e in (1, 2)
        for s in range(5)
    ]
    stacks = grouped(jobs, sizes=lambda job: job[1] % 2, widest=2)
    assert sorted(index for stack in stacks for index in stack) == list(range(len(jobs)))


def test_a_stack_is_as_wide_as_memory_lets_it(tiny, monkeypatch):
    experiment = Experiment(**tiny(stream=FIXED))
    one = estimate(experiment).memory

    def with_free(memory):
        monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=memory))
        return widest_stack(experiment)

    assert with_free(one / 10) == 1
    assert with_free(10.5 * one) == 7
    assert with_free(1e6 * one) == 64
