"""What a dry run foresees: operations, and the time that they take."""

import pytest

from acn_cl.display import in_ranges, in_time
from acn_cl.spec import Experiment, parse_seeds
from acn_cl.training import estimate as module
from acn_cl.training.estimate import estimate, seconds

DIGITS = {"name": "split-digits", "images_per_class": 10}
LINEAR = {"block": "mlp", "wiring": "feedforward", "depth": 1, "width": 4, "patch": 8}


def test_operations_are_those_of_training_and_of_the_tests_after_every_experience():
    """A patch of 64 pixels into 4 features, then 4 -> 16 -> 4: two operations a product, three passes in training."""
    experiment = Experiment(stream=DIGITS, backbone=LINEAR | {"hidden": 16}, epochs=3)
    an_image = 2 * (64 * 4 + 4 * 16 + 16 * 4)
    trained = 3 * 5 * 20  # epochs, experiences, images
    tests = 355 / 10 * 2 * (1 + 2 + 3 + 4 + 5)  # images of two classes; all experiences so far
    assert estimate(experiment).operations == pytest.approx(an_image * (3 * trained + tests), rel=0.02)


def test_time_grows_with_the_operations_at_the_measured_rate(monkeypatch):
    monkeypatch.setattr(module, "_rate", lambda device, precision: 1e9)
    experiment = Experiment(stream=DIGITS, backbone=LINEAR)
    size = estimate(experiment)
    assert seconds(experiment, size) == pytest.approx(size.operations / 1e9 / module.SHARE + module.STEP * size.steps)


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
