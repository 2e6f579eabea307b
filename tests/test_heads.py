"""Heads and network: what each scenario and label space answers, against Avalanche's classifiers and by hand."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from avalanche.models import MultiHeadClassifier
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from acn_cl.backbones.build import build_backbone
from acn_cl.training.heads import Heads
from acn_cl.training.loss import cross_entropy
from acn_cl.training.network import Network

D = 5
CPU = torch.device("cpu")


def heads(units, scenario, common=False):
    return Heads(D, units, scenario, common_labels=common, random_state=lambda index: nullcontext())


def grown(units, scenario, common=False, upto=None):
    made = heads(units, scenario, common)
    made.grow(len(units) - 1 if upto is None else upto, CPU)
    return made


def test_a_task_incremental_head_is_its_experiences_alone():
    made = grown([[0, 1, 2], [0, 1]], "task-incremental")
    x = torch.randn(4, D)
    torch.testing.assert_close(made(x, 1), torch.nn.functional.linear(x, made.blocks[1].weight, made.blocks[1].bias))
    assert made(x, 0).shape == (4, 3)


def test_class_incremental_blocks_stand_side_by_side_and_stay_the_parameters_they_are():
    made = heads([[0, 1], [2, 3], [4]], "class-incremental", common=True)
    made.grow(0, CPU)
    first = made.blocks[0].weight
    made.grow(2, CPU)
    x = torch.randn(3, D)
    assert made.blocks[0].weight is first, "an optimiser's state belongs to this tensor"
    torch.testing.assert_close(made(x, 0), torch.cat([block(x) for block in made.blocks], 1))


def test_only_training_adds_a_head():
    network = Network(
        build_backbone("ac_mixer", image_size=(8, 8), channels=1, depth=1, width=8, patch=4),
        heads([[0, 1], [0, 1]], "task-incremental"),
    )
    network.eval().adaptation(SimpleNamespace(current_experience=0))
    assert not network.heads.can_answer(0)
    network.train().adaptation(SimpleNamespace(current_experience=0))
    assert network.heads.can_answer(0)
    assert not network.heads.can_answer(1)


def test_a_domain_incremental_head_is_there_from_the_start():
    made = heads([[0, 1]] * 3, "domain-incremental")
    assert made.can_answer(2)
    made.grow(2, CPU)
    assert len(made.blocks) == 1


def test_leading_axes_are_kept():
    made = grown([[0, 1], [0, 1, 2]], "task-incremental")
    assert made(torch.randn(7, 4, D), 1).shape == (7, 4, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_global_labels_answer_as_avalanches_multi_head_does(dtype):
    """Class ids 0..8 in three experiences: masked inside a head's reach, zeros beyond it, up to the largest seen."""
    classes = [[4, 2], [7, 0], [8, 1]]
    theirs = MultiHeadClassifier(D, initial_out_features=1)
    ours = grown([sorted(c) for c in classes], "task-incremental", common=True)
    for task, ids in enumerate(classes):
        theirs.train()
        theirs.adaptation(SimpleNamespace(classes_in_this_experience=ids, task_labels=[task]))
        linear = theirs.classifiers[str(task)].classifier
        with torch.no_grad():
            linear.weight[sorted(ids)] = ours.blocks[task].weight
            linear.bias[sorted(ids)] = ours.blocks[task].bias
    x = torch.randn(6, D)
    for task in range(3):
        expected = theirs(x, torch.full((6,), task))
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is torch.bfloat16):  # where Avalanche's own raises
            answer = ours(x, task)
        torch.testing.assert_close(answer.float(), expected, atol=1e-6 if dtype is torch.float32 else 0.05, rtol=0.01)


def test_a_batch_of_several_tasks_is_answered_row_by_row():
    """Rows of shorter heads are filled with what a softmax turns into 0."""
    network = Network(
        build_backbone("ac_mixer", image_size=(8, 8), channels=1, depth=1, width=8, patch=4),
        Heads(8, [[0, 1, 2], [0, 1]], "task-incremental", common_labels=False, random_state=lambda i: nullcontext()),
    )
    network.heads.grow(1, CPU)
    images, tasks = torch.randn(4, 1, 8, 8), torch.tensor([1, 0, 1, 0])
    mixed = network(images, tasks)
    for row, task in enumerate(tasks.tolist()):
        alone = network(images[row : row + 1], task)[0]
        torch.testing.assert_close(mixed[row].softmax(0)[: len(alone)], alone.softmax(0))
        assert mixed[row].softmax(0)[len(alone) :].sum() == 0


def smoothed_one_by_one(network, features, labels, tasks, smoothing):
    """Mean over the images of -Σ_c target_c log p_c, c the classes of the image's own head."""
    total = 0.0
    for row, (label, task) in enumerate(zip(labels.tolist(), tasks.tolist(), strict=True)):
        logits = network(features[row : row + 1], task)[0].double()
        log_p = logits - logits.exp().sum().log()
        target = torch.full_like(log_p, smoothing / len(log_p))
        target[label] += 1 - smoothing
        total = total - (target * log_p).sum() / len(labels)
    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothing_spreads_over_the_classes_of_an_images_own_head(smoothing):
    """Heads of three, two and four classes in one batch, against a loop over its images."""
    made = grown([[0, 1, 2], [0, 1], [0, 1, 2, 3]], "task-incremental").double()
    network, features = Network(nn.Identity(), made), torch.randn(6, D, dtype=torch.float64)
    tasks, labels = torch.tensor([1, 0, 2, 1, 0, 1]), torch.tensor([0, 2, 3, 1, 1, 0])
    loss = cross_entropy(network(features, tasks), labels, smoothing)
    expected = smoothed_one_by_one(network, features, labels, tasks, smoothing)
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0.0)
    found, wanted = (torch.autograd.grad(value, list(made.parameters())) for value in (loss, expected))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_smoothing_leaves_padding_out_in_bf16_too():
    network = Network(nn.Identity(), grown([[0, 1, 2], [0, 1]], "task-incremental"))
    features, tasks, labels = torch.randn(4, D), torch.tensor([1, 0, 1, 0]), torch.tensor([0, 2, 1, 0])
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        loss = cross_entropy(network(features, tasks), labels, 0.1)
        expected = smoothed_one_by_one(network, features, labels, tasks, 0.1)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_where_every_class_is_there_smoothing_is_torchs(smoothing):
    logits, labels = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 3, 1, 2, 2, 0])
    torch.testing.assert_close(
        cross_entropy(logits, labels, smoothing), F.cross_entropy(logits, labels, label_smoothing=smoothing)
    )


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_seen_order_is_never_padded_in_a_class_incremental_stream(sizes):
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    units = [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]
    assert grown(units, "class-incremental", common=True)(torch.zeros(1, D), 0).shape == (1, sum(sizes))
