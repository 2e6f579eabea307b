"""Strategies with a memory or a teacher against plain-torch transcriptions, and what holds for the whole table.

The transcriptions see the batches that the run saw and the images that it drew; everything else is computed anew, with
nothing of ours but the network.
"""

import copy
import inspect
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from acn_cl.benchmarks.streams import transforms
from acn_cl.benchmarks.streams.transforms import BatchTransform
from acn_cl.errors import SpecError, UserError
from acn_cl.spec import Experiment
from acn_cl.strategies.build import build_strategy
from acn_cl.strategies.der import mean_square
from acn_cl.strategies.gem import dual
from acn_cl.strategies.icarl import herding
from acn_cl.strategies.memory import Memory, evenly
from acn_cl.strategies.table import STRATEGIES
from acn_cl.tables import resolve
from acn_cl.training import learner, session
from acn_cl.training.batches import DeviceData
from acn_cl.training.estimate import estimate
from acn_cl.training.session import Session

EXPERIENCES = 3
TI, CI = "task-incremental", "class-incremental"
LR = 0.2


@pytest.fixture(autouse=True)
def in_double_precision(monkeypatch):
    """In fp32 two right ways to compute a step drift apart while training; in float64 they agree to 1e-9."""

    class Double(BatchTransform):
        def evaluate(self, images):
            return super().evaluate(images).double()

    class Unwatched(SupervisedPlugin):
        def __init__(self, _):
            super().__init__()

        def sums(self):
            return {}

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(transforms, "BatchTransform", Double)
    monkeypatch.setattr(session, "LayerWatch", Unwatched)
    monkeypatch.setattr(
        learner, "cross_entropy", lambda logits, labels, s: F.cross_entropy(logits, labels, label_smoothing=s)
    )
    yield
    torch.set_default_dtype(before)


@dataclass
class Step:
    images: torch.Tensor
    labels: torch.Tensor
    tasks: torch.Tensor
    recalled: object = None


@dataclass
class Recording:
    """A run, seen from outside."""

    session: Session
    strategy: object
    before: nn.Module = None
    steps: list = field(default_factory=lambda: [[] for _ in range(EXPERIENCES)])
    weights: list = field(default_factory=list)
    heads: list = field(default_factory=list)

    def epoch_done(self, *_):
        pass

    def save(self, _):
        pass

    def experience_done(self, *_):
        self.weights.append(copy.deepcopy(self.session.network.state_dict()))


def recorded(name, scenario=TI, epochs=2, batch_size=8, optimizer=None, loss=None, **options):
    """Train a tiny network on three experiences of digits and write down every batch, and what was drawn for it."""
    experiment = Experiment(
        stream={"name": "split-digits", "scenario": scenario, "images_per_class": 24, "stop_after": EXPERIENCES},
        backbone={"name": "ac_mixer", "depth": 2, "width": 12, "tokens_hidden": 8, "channels_hidden": 12},
        optimizer=optimizer or {"name": "sgd", "lr": LR, "weight_decay": 0.0},
        loss=loss or {},
        epochs=epochs,
        batch_size=batch_size,
        precision="fp32",
        device="cpu",
    )
    run = Session(experiment, 0, Path())
    run.strategy = strategy = build_strategy(name, **options)
    record = Recording(run, strategy, copy.deepcopy(run.network))

    def note_batch(learner, **_):
        step = Step(learner.mb_x.clone(), learner.mb_y.clone(), learner.mb_task_id.clone())
        record.steps[learner.experience.current_experience].append(step)

    strategy.before_forward = note_batch
    if hasattr(strategy, "recall"):
        recall = strategy.recall

        def note_recall(learner):
            record.steps[learner.experience.current_experience][-1].recalled = recall(learner)
            return record.steps[learner.experience.current_experience][-1].recalled

        strategy.recall = note_recall
    run.train(record)
    return record


def answers(network, images, tasks, scenario):
    """Logits, from the network's parts: of each image's own head, or of all heads side by side."""
    features = network.backbone(images)
    if scenario == CI:
        return torch.cat([block(features) for block in network.heads.blocks], 1)
    return torch.stack([network.heads.blocks[int(t)](f) for t, f in zip(tasks, features, strict=True)])


def transcribed(record, scenario, update, end=lambda network, index: None, begin=lambda network, index: None):
    """SGD by hand: ``update(network, step, index)`` gives the gradients; weights after each experience."""
    network = copy.deepcopy(record.before)
    after = []
    for index in range(EXPERIENCES):
        network.heads.grow(index, torch.device("cpu"))
        begin(network, index)
        for step in record.steps[index]:
            for parameter, gradient in zip(network.parameters(), update(network, step, index), strict=True):
                if gradient is not None:
                    parameter.data -= LR * gradient
        end(network, index)
        after.append(copy.deepcopy(network.state_dict()))
    return after


def gradients(loss, network):
    return torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)


def distance(a, b):
    """Relative norm of the difference of two lists of weights."""
    flat = [torch.cat([t.flatten() for t in w.values()]) for w in (*a, *b)]
    return max(float((x - y).norm() / y.norm()) for x, y in zip(flat[: len(a)], flat[len(a) :], strict=True))


def assert_same(record, reference, naive_too=True):
    assert distance(record.weights, reference) < 1e-9
    if naive_too:
        plain = recorded("naive", record.session.stream.scenario)
        assert distance(record.weights[1:], plain.weights[1:]) > 1e-3, "the comparison says nothing if it does nothing"


@pytest.mark.parametrize("scenario", [TI, CI])
@pytest.mark.parametrize("balance", ["reservoir", "class"])
def test_replay_is_the_mean_over_both_batches(scenario, balance):
    record = recorded("replay", scenario, memory=30, balance=balance, batch=10)

    def update(network, step, index):
        images, labels, tasks = step.images, step.labels, step.tasks
        if step.recalled is not None:
            old = step.recalled
            images, labels = torch.cat([images, old.images]), torch.cat([labels, old.labels])
            tasks = torch.cat([tasks, old.tasks])
        return gradients(F.cross_entropy(answers(network, images, tasks, scenario), labels), network)

    assert_same(record, transcribed(record, scenario, update))
    drawn = [step.recalled for step in record.steps[2]]
    assert record.steps[0][0].recalled is None
    assert all(len(set(r.rows.tolist())) == 10 for r in drawn), "without repetition within a step"
    assert len({tuple(r.rows.tolist()) for r in drawn}) > 1


@pytest.mark.parametrize("scenario", [TI, CI])
def test_lwf_distils_every_old_head(scenario):
    record = recorded("lwf", scenario, alpha=1.5, temperature=3.0)
    teacher = None

    def begin(network, index):
        nonlocal teacher
        teacher = copy.deepcopy(network)

    def update(network, step, index):
        loss = F.cross_entropy(answers(network, step.images, step.tasks, scenario), step.labels)
        groups = [[i] for i in range(index)] if scenario == TI else [list(range(index))] if index else []
        for group in groups:
            p, q = (
                torch.cat([net.heads.blocks[i](net.backbone(step.images)) for i in group], 1) / 3.0
                for net in (teacher, network)
            )
            p = p.detach().softmax(1)
            loss = loss - 1.5 * (p * q.log_softmax(1)).sum(1).mean()  # KL but for a constant
        return gradients(loss, network)

    assert_same(record, transcribed(record, scenario, update, begin=begin))


@pytest.mark.parametrize("scenario", [TI, CI])
def test_agem_projects_the_whole_gradient(scenario):
    record = recorded("a-gem", scenario, memory=24, batch=12)
    projected = 0

    def update(network, step, index):
        nonlocal projected
        loss = F.cross_entropy(answers(network, step.images, step.tasks, scenario), step.labels)
        found = gradients(loss, network)
        if step.recalled is None:
            return found
        old = step.recalled
        reference = gradients(F.cross_entropy(answers(network, old.images, old.tasks, scenario), old.labels), network)
        g, r = (np.concatenate([_array(x, p) for x, p in zip(grads, network.parameters(), strict=True)])
                for grads in (found, reference))  # fmt: skip
        if g @ r >= 0:
            return found
        projected += 1
        return _split(g - (g @ r) / (r @ r) * r, network)

    assert_same(record, transcribed(record, scenario, update))
    assert projected > 3


@pytest.mark.parametrize("scenario", [TI, CI])
def test_gem_takes_the_nearest_gradient_that_hurts_no_old_experience(scenario):
    record = recorded("gem", scenario, memory=24, strength=0.3)
    final = record.strategy.memory
    assert Counter(final["experiences"].tolist()) == {0: 8, 1: 8, 2: 8}
    memories = {}
    projected = 0

    def end(network, index):
        """What was in the memory then: of the first experiences the images of the lowest ranks."""
        data = record.session._data
        share = 24 // (index + 1)
        memories.clear()
        for old in range(index + 1):
            ranks = record.session.seeds.generator("data_order", old, 0, 0, 1).integers(2**62, size=len(data[old]))
            rows = torch.from_numpy(np.sort(np.argsort(ranks)[:share]))
            images = record.session._transform.evaluate(data[old].images[rows])
            memories[old] = images, data[old].labels[rows], torch.full_like(rows, old)

    def update(network, step, index):
        nonlocal projected
        found = gradients(F.cross_entropy(answers(network, step.images, step.tasks, scenario), step.labels), network)
        if not memories:
            return found
        parameters = list(network.parameters())
        g = np.concatenate([_array(x, p) for x, p in zip(found, parameters, strict=True)])
        G = np.stack([
            np.concatenate([_array(x, p) for x, p in zip(
                gradients(F.cross_entropy(answers(network, x, t, scenario), y), network), parameters, strict=True)])
            for x, y, t in memories.values()
        ])  # fmt: skip
        if (G @ g >= 0).all():
            return found
        projected += 1
        return _split(g + _every_active_set(G @ G.T + 1e-3 * np.eye(len(G)), G @ g, 0.3) @ G, network)

    assert_same(record, transcribed(record, scenario, update, end=end))
    assert projected > 3


def _array(gradient, parameter):
    return np.zeros(parameter.numel()) if gradient is None else gradient.flatten().double().numpy()


def _split(flat, network):
    parts = torch.from_numpy(flat).split([p.numel() for p in network.parameters()])
    return [part.view_as(p) for part, p in zip(parts, network.parameters(), strict=True)]


def _every_active_set(P, q, bound):
    """min ½ vᵀPv + qᵀv, v >= bound, by trying which elements lie at the bound."""
    best, value = None, np.inf
    for active in itertools.product([False, True], repeat=len(q)):
        free = ~np.array(active)
        v = np.full(len(q), float(bound))
        if free.any():
            v[free] = np.linalg.solve(P[np.ix_(free, free)], -q[free] - P[np.ix_(free, ~free)] @ v[~free])
        if (v >= bound - 1e-12).all() and (now := 0.5 * v @ P @ v + q @ v) < value:
            best, value = v, now
    return best


@given(st.integers(1, 5), st.floats(0, 2), st.integers(0, 2**32 - 1))
def test_gems_dual_problem_is_solved(size, strength, seed):
    draws = np.random.default_rng(seed)
    G, g = draws.normal(size=(size, 8)), draws.normal(size=8)
    expected = _every_active_set(G @ G.T + 1e-3 * np.eye(size), G @ g, strength)
    np.testing.assert_allclose(dual(G @ G.T, G @ g, strength), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("scenario", [TI, CI])
@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_der_holds_old_logits(scenario, beta):
    record = recorded("der", scenario, memory=30, batch=10, alpha=0.4, beta=beta)
    teachers = []

    def end(network, index):
        teachers.append(copy.deepcopy(network).eval())

    def update(network, step, index):
        loss = F.cross_entropy(answers(network, step.images, step.tasks, scenario), step.labels)
        if step.recalled is not None:
            old = step.recalled
            memory = record.strategy.memory
            now = answers(network, old.images, old.tasks, scenario)
            # Which experience an image is of: its task, or where its label stands in the order of classes.
            origin = old.tasks if scenario == TI else old.labels // 2
            distances = []
            for image, task, experience, logits in zip(old.images, old.tasks, origin, now, strict=True):
                then = answers(teachers[int(experience)], image[None], task[None], scenario)[0].detach()
                distances.append((logits[: len(then)] - then) ** 2)
            assert len(memory) == 30
            loss = loss + 0.4 * torch.cat(distances).mean() + beta * F.cross_entropy(now, old.labels)
        return gradients(loss, network)

    assert_same(record, transcribed(record, scenario, update, end=end))


def test_der_leaves_out_units_that_came_later():
    nan = torch.nan
    h = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
    z = torch.tensor([[0.0, nan], [4.0, 2.0]])
    value = mean_square(h, z)
    assert value.item() == pytest.approx((1 + 0 + 9) / 3)
    value.backward()
    torch.testing.assert_close(h.grad, torch.tensor([[2 / 3, 0, 0], [0, 2.0, 0]]))


@pytest.mark.parametrize("scenario", [TI, CI])
def test_er_ace_lets_new_images_compete_among_themselves(scenario):
    record = recorded("er-ace", scenario, memory=30, batch=10, batch_size=8)

    def update(network, step, index):
        logits = answers(network, step.images, step.tasks, scenario)
        if step.recalled is None:
            return gradients(F.cross_entropy(logits, step.labels), network)
        old = step.recalled
        absent = torch.tensor([c not in step.labels.tolist() for c in range(logits.shape[1])])
        loss = F.cross_entropy(logits.masked_fill(absent, -torch.inf), step.labels)
        loss = loss + F.cross_entropy(answers(network, old.images, old.tasks, scenario), old.labels)
        return gradients(loss, network)

    assert_same(record, transcribed(record, scenario, update))
    drawn = torch.cat([step.recalled.labels for step in record.steps[1]])
    if scenario == CI:
        assert {2, 3} <= set(drawn.tolist()), "the current classes are in the memory while they are learned"


@pytest.mark.parametrize("name", ["er-ace", "replay", "der", "lwf"])
def test_cutmix_and_smoothing_go_with_it(name):
    options = {} if name == "lwf" else {"memory": 20}
    record = recorded(name, CI, loss={"cutmix": 1.0, "label_smoothing": 0.1}, **options)
    assert all(t.isfinite().all() for t in record.weights[-1].values())


@pytest.mark.parametrize("name", ["joint", "cumulative", "gdumb"])
@pytest.mark.parametrize("scenario", [TI, CI])
def test_what_the_network_is_trained_on_and_from(name, scenario):
    record = recorded(name, scenario, **({"memory": 30} if name == "gdumb" else {}))

    def begin(network, index):
        if name != "cumulative":
            fresh = copy.deepcopy(record.before)
            fresh.heads.grow(index, torch.device("cpu"))
            network.load_state_dict(fresh.state_dict())

    def update(network, step, index):
        return gradients(F.cross_entropy(answers(network, step.images, step.tasks, scenario), step.labels), network)

    assert_same(record, transcribed(record, scenario, update, begin=begin))
    for index in range(EXPERIENCES):
        of_epoch = record.steps[index][: len(record.steps[index]) // 2]
        tasks, labels = (torch.cat([getattr(s, key) for s in of_epoch]).tolist() for key in ("tasks", "labels"))
        classes = Counter(zip(tasks, labels, strict=True))
        seen = 2 * (index + 1)
        assert len(classes) == seen
        assert max(classes.values()) - min(classes.values()) <= (name == "gdumb")
        assert sum(classes.values()) == (30 if name == "gdumb" else 24 * seen)


# joint's 96 images make 12 batches of 8, for 48 of its own; gdumb's memory of 30 images ends in a batch of 6
@pytest.mark.parametrize(
    ("name", "options", "of_an_epoch"),
    [
        ("naive", {}, [48, 48, 48]),
        ("joint", {}, [48, 96, 144]),
        ("cumulative", {}, [48, 96, 144]),
        ("gdumb", {"memory": 30}, [30, 30, 30]),
        ("gdumb", {"memory": 60}, [48, 60, 60]),
        ("icarl", {"memory": 60}, [48, 96, 108]),
        ("replay", {"memory": 60}, [48, 48, 48]),
    ],
)
def test_images_trained_on_are_counted_and_foreseen(name, options, of_an_epoch):
    """In the timing table after the run, and in a dry run before it."""
    record = recorded(name, **options)
    timed = [row["samples"] for row in record.session.results.timing if row["phase"] == "train"]
    assert timed == [sum(len(step.labels) for step in steps) for steps in record.steps]
    assert timed == [2 * images for images in of_an_epoch]
    spec = record.session.experiment.model_dump(by_alias=True) | {"strategy": {"name": name, **options}}
    assert estimate(Experiment(**spec)).steps == sum(len(steps) for steps in record.steps)


def test_a_plug_in_without_a_word_on_its_images_is_foreseen_to_train_on_its_own(tiny):
    theirs = Experiment(**tiny(strategy={"name": "avalanche.training.plugins:EWCPlugin", "ewc_lambda": 1.0}))
    assert estimate(theirs).steps == estimate(Experiment(**tiny())).steps


@pytest.mark.parametrize("name", ["joint", "cumulative", "gdumb"])
def test_cutmix_is_refused_where_it_would_mix_images_of_two_heads(name):
    with pytest.raises(SpecError, match=r"loss\.cutmix: .*several heads"):
        recorded(name, TI, loss={"cutmix": 0.5})
    assert all(t.isfinite().all() for t in recorded(name, CI, loss={"cutmix": 0.5}).weights[-1].values())


def test_going_back_to_the_first_weights_empties_the_optimiser():
    """AdamW's moments of the last experience must not move the new weights."""
    options = {"name": "adamw", "lr": 1e-3, "state": "carry"}
    carried = recorded("joint", optimizer=options)
    reset = recorded("joint", optimizer=options | {"state": "reset"})
    assert distance(carried.weights, reset.weights) == 0


@pytest.mark.parametrize("scenario", [TI, CI])
def test_icarl_trains_on_sigmoids(scenario):
    record = recorded("icarl", scenario, memory=30)
    before = None

    def begin(network, index):
        nonlocal before
        before = copy.deepcopy(network)

    def update(network, step, index):
        logits = answers(network, step.images, step.tasks, scenario)
        then = answers(before, step.images, step.tasks, scenario).detach().sigmoid()
        loss = []
        for row in range(len(logits)):
            for unit in range(logits.shape[1]):
                is_old = int(step.tasks[row]) < index if scenario == TI else unit < 2 * index
                target = then[row, unit] if is_old else torch.tensor(float(unit == step.labels[row]))
                q = logits[row, unit].sigmoid()
                loss.append(-(target * q.log() + (1 - target) * (1 - q).log()))
        return gradients(torch.stack(loss).mean(), network)

    assert_same(record, transcribed(record, scenario, update, begin=begin))


@pytest.mark.parametrize("scenario", [TI, CI])
def test_icarl_answers_with_the_nearest_mean_of_its_exemplars(scenario):
    record = recorded("icarl", scenario, memory=30)
    network, memory = record.session.network, record.strategy.memory
    evaluate = record.session._transform.evaluate

    def features(images):
        with torch.no_grad():
            return F.normalize(network.backbone(evaluate(images)), dim=1)

    exemplars = features(memory["images"])
    for index in range(EXPERIENCES):
        test = record.session._tests[index]
        candidates = {}
        for task, label in set(zip(memory["tasks"].tolist(), memory["labels"].tolist(), strict=True)):
            if scenario == CI or task == index:
                own = (memory["tasks"] == task) & (memory["labels"] == label)
                candidates[label] = F.normalize(exemplars[own].mean(0), dim=0)
        expected = [min(candidates, key=lambda c: float((f - candidates[c]).norm())) for f in features(test.images)]
        with torch.no_grad():
            answered = network.heads(network.backbone(evaluate(test.images)), index).argmax(1)
        assert answered.tolist() == expected


def test_herding_chooses_what_brings_the_mean_nearest():
    features = F.normalize(torch.randn(9, 4, generator=torch.Generator().manual_seed(1)), dim=1)
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 0])
    ranks = herding(features, labels)
    for label in (0, 1):
        rows = [i for i in range(9) if labels[i] == label]
        mean = features[rows].mean(0)
        chosen = []
        while len(chosen) < len(rows):
            left = [r for r in rows if r not in chosen]
            chosen.append(min(left, key=lambda r: float((mean - features[[*chosen, r]].mean(0)).norm())))
        assert ranks[chosen].tolist() == list(range(len(rows)))


@pytest.mark.parametrize(
    ("change", "wrong"),
    [({"loss": {"cutmix": 0.5}}, r"loss\.cutmix"), ({"scenario": "domain-incremental"}, r"classes of their own")],
)
def test_icarl_refuses_what_it_has_no_meaning_for(change, wrong):
    with pytest.raises(SpecError, match=wrong):
        recorded("icarl", memory=10, **change)


# The memory.


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(0, 45), st.integers(0, 2**32 - 1))
def test_a_memory_is_shared_evenly_and_keeps_the_lowest_ranks(groups, size, seed):
    groups = np.array(groups, dtype=np.int64)
    ranks = np.random.default_rng(seed).permutation(len(groups))
    kept = evenly(groups, ranks, size)
    assert len(kept) == min(size, len(groups))
    assert (np.diff(kept) > 0).all()
    held, there = Counter(groups[kept].tolist()), Counter(groups.tolist())
    fullest = max(held.values(), default=0)
    for group, count in there.items():
        assert held[group] == count or held[group] >= fullest - 1, "a group is short only if it has no more"
        own = ranks[groups == group]
        assert set(ranks[kept][groups[kept] == group]) == set(np.sort(own)[: held[group]])


def test_a_reservoir_is_a_uniform_sample_of_everything_seen():
    """Each of 60 images in three unequal experiences is kept with probability 1/6: a chi-squared test at 1e-4."""
    counts = np.zeros(60)
    for run in range(600):
        memory, start = Memory(10, "reservoir"), 0
        draws = np.random.default_rng(run)
        for experience, size in enumerate((10, 30, 20)):
            images = torch.arange(start, start + size, dtype=torch.uint8).view(-1, 1, 1, 1)
            data = DeviceData(images, torch.zeros(size, dtype=torch.int64))
            ranks = torch.from_numpy(draws.integers(2**62, size=size))
            memory.add(data, task=0, experience=experience, ranks=ranks)
            start += size
        counts[memory["images"].flatten().numpy()] += 1
    assert counts.sum() == 6000
    assert ((counts - 100) ** 2 / 100 * 60 / 50).sum() < 112  # the 1 - 1e-4 quantile of χ² with 59 degrees of freedom


def test_notes_stay_with_their_images():
    memory = Memory(6, "class")
    for experience in range(3):
        images = torch.full((5, 1, 2, 2), experience, dtype=torch.uint8)
        data = DeviceData(images, torch.tensor([0, 1, 0, 1, 0]) + 2 * experience)
        memory.add(data, task=0, experience=experience, ranks=torch.arange(5))
        rows = torch.nonzero(memory["experiences"] == experience)[:, 0]
        memory.note("logits", torch.full((len(rows), 2 + experience), float(experience)), rows)
    assert len(memory) == 6
    for row in range(6):
        experience = int(memory["experiences"][row])
        known = memory["logits"][row][: 2 + experience]
        assert known.tolist() == [experience] * (2 + experience)
        assert memory["logits"][row][2 + experience :].isnan().all()
        assert memory["images"][row].unique().tolist() == [experience]


# What holds for every line of the table.


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_spec_has_every_option_with_the_same_default(name):
    entry = STRATEGIES[name]
    target = resolve(entry.target)
    own = "__init__" in vars(target)
    signature = {} if not own else {k: p.default for k, p in inspect.signature(target).parameters.items()}
    assert signature == {key: f.default for key, f in entry.settings.model_fields.items()}
    assert all(f.description for f in entry.settings.model_fields.values())
    assert "Moves:" in target.__doc__ or name == "naive"


@pytest.mark.parametrize("name", STRATEGIES)
def test_nothing_of_ours_draws_from_the_global_generators(name, monkeypatch):
    """So that what a strategy draws moves nobody else's numbers, and a resumed run needs no replay of them."""
    options = {"memory": 20} if "memory" in STRATEGIES[name].settings.model_fields else {}
    options |= {"fisher": "sampled", "lambda_": 1.0} if name == "ewc" else {}

    def refuse(*_, **__):
        raise AssertionError(f"{name} drew from a global generator")

    for module, functions in ((np.random, ("permutation", "choice")), (random, ("shuffle", "random", "sample"))):
        for function in functions:
            monkeypatch.setattr(module, function, refuse)
    states = []
    experience_done = Recording.experience_done

    def note_state(self, *args):
        states.append(torch.get_rng_state())
        experience_done(self, *args)

    monkeypatch.setattr(Recording, "experience_done", note_state)
    recorded(name, CI, **options)
    assert all(torch.equal(state, states[0]) for state in states)


@pytest.mark.parametrize("name", ["replay", "lwf", "joint"])
def test_what_needs_our_learner_says_so(name):
    model = nn.Linear(2, 2)
    plain = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        plugins=[build_strategy(name)],
        evaluator=EvaluationPlugin(loggers=[BaseLogger()]),
    )
    with pytest.raises(UserError, match=r"acn_cl's Learner, and this is a Naive"):
        plain.train([])
