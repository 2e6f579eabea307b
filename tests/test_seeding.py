"""One seed, four independent streams, each of which can be pinned."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from acn_cl.seeding import PURPOSES, Seeds
from acn_cl.training.randomness import own_random_state

SEED = st.integers(0, 2**32)


@given(SEED, st.integers(0, 30), st.integers(0, 30))
def test_every_purpose_and_position_draws_its_own_numbers(seed, experience, epoch):
    seeds = Seeds(seed)
    drawn = {seeds.integer(p, *at) for p in PURPOSES for at in ((), (experience,), (experience, epoch))}
    assert len(drawn) == 3 * len(PURPOSES)
    assert all(0 <= value < 2**63 for value in drawn)


@given(SEED, SEED, st.sampled_from(PURPOSES))
def test_a_pinned_purpose_follows_the_pin_and_the_others_the_run(seed, pin, pinned):
    free, held = Seeds(seed), Seeds(seed, {pinned: pin})
    for purpose in PURPOSES:
        expected = Seeds(pin) if purpose == pinned else free
        assert held.integer(purpose, 3) == expected.integer(purpose, 3)


def test_these_numbers_are_part_of_every_published_result():
    """numpy promises that SeedSequence is stable; this is our use of it, written out."""
    expected = np.random.SeedSequence(7, spawn_key=(2, 3, 4)).generate_state(1, np.uint64)[0] >> np.uint64(1)
    assert Seeds(7).integer("data_order", 3, 4) == int(expected)


def test_the_callers_random_state_is_left_alone():
    import random

    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
    expected = (torch.rand(1), np.random.rand(), random.random())  # noqa: NPY002
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
    with own_random_state(5):
        torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    assert (torch.rand(1), np.random.rand(), random.random()) == expected  # noqa: NPY002
