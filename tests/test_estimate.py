"""What a dry run foresees: operations, and the time that they take."""

import sys
import time
from typing import ClassVar

import pytest
import torch
from torch import nn

from acn_cl.backbones.build import build_backbone
from acn_cl.benchmarks.streams.build import build_stream
from acn_cl.display import in_ranges, in_time
from acn_cl.spec import Experiment, parse_seeds
from acn_cl.training import estimate as module
from acn_cl.training.estimate import estimate, seconds

DIGITS = {"name": "split-digits", "images_per_class": 10}
LINEAR = {"block": "mlp", "wiring": "feedforward", "depth": 1, "width": 4, "patch": 8}


class Counting(nn.Sequential):
    """A network of a user's that notes how many images it is shown."""

    images: ClassVar[list[int]] = []

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 4))

    def forward(self, x):
        self.images.append(len(x))
        return super().forward(x)


def test_operations_are_those_of_training_and_of_the_tests_after_every_experience():
    """A patch of 64 pixels into 4 features, then 4 -> 16 -> 4: two operations a product, three passes in training."""
    experiment = Experiment(stream=DIGITS, backbone=LINEAR | {"hidden": 16}, epochs=3)
    an_image = 2 * (64 * 4 + 4 * 16 + 16 * 4)
    trained = 3 * 5 * 20  # epochs, experiences, images
    tests = 355 / 10 * 2 * (1 + 2 + 3 + 4 + 5)  # images of two classes; all experiences so far
    assert estimate(experiment).operations == pytest.approx(an_image * (3 * trained + tests), rel=0.02)


def mine(seeds):
    return build_stream("split-digits", seeds=seeds, images_per_class=10)


def test_somebodys_own_stream_is_counted_as_it_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "test_estimate_names", sys.modules[__name__])
    ours = estimate(Experiment(stream=DIGITS, backbone=LINEAR))
    own = estimate(Experiment(stream={"name": "test_estimate_names:mine"}, backbone=LINEAR))
    assert (own.steps, own.parameters, own.image_shape) == (ours.steps, ours.parameters, ours.image_shape)
    assert own.operations == pytest.approx(ours.operations, rel=0.02), "ours takes all classes to be as large"


def test_time_is_that_of_a_step_that_was_tried(monkeypatch):
    """Against an independent clock: so many forward and backward passes of a whole batch."""
    experiment = Experiment(
        stream=DIGITS, backbone={"name": "ac_mixer", "depth": 3, "width": 64, "patch": 2}, epochs=40, precision="fp32"
    )
    size = estimate(experiment)
    backbone = build_backbone("ac_mixer", image_size=(8, 8), channels=1, depth=3, width=64, patch=2)
    images = torch.randn(experiment.batch_size, 1, 8, 8)
    took = []
    for _ in range(5):
        started = time.perf_counter()
        backbone(images).sum().backward()
        took.append(time.perf_counter() - started)
    monkeypatch.setattr(module, "STEP", 0.0)
    image_steps = size.operations / (3 * backbone.flops_by_depth()[-1])
    wanted = image_steps / len(images) * min(took)
    assert wanted / 3 < seconds(experiment, size) < wanted * 3, "other work on the machine is in both"


def test_a_network_too_large_to_try_a_batch_of_is_tried_with_fewer_images(monkeypatch):
    monkeypatch.setitem(sys.modules, "test_estimate_names", sys.modules[__name__])
    monkeypatch.setattr(module, "TRIAL", 0)
    Counting.images = []
    experiment = Experiment(stream=DIGITS, backbone={"name": "test_estimate_names:Counting"})
    seconds(experiment, estimate(experiment))
    assert Counting.images[-3:] == [module.PROBE] * 3


@pytest.mark.parametrize(
    ("count", "text"), [(3.21, "3.2 s"), (59, "59 s"), (90, "1.5 min"), (5000, "1.4 h"), (2e5, "2.3 d")]
)
def test_times_are_read_at_a_glance(count, text):
    assert in_time(count) == text


@pytest.mark.parametrize(
    ("numbers", "text"), [((0, 1, 2, 5), "0-2,5"), ((3,), "3"), ((0, 2, 4), "0,2,4"), ((4, 3), "4,3")]
)
def test_seeds_are_shown_as_they_are_given(numbers, text):
    assert in_ranges(numbers) == text
    assert parse_seeds(text) == numbers
