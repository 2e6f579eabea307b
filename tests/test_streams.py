"""Streams of the embedded digits and of made-up data: label spaces, partitions, held-out parts, keys that do not fit.

tests/test_data_real.py compares the streams of CIFAR-100 and MNIST with independent readings.
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from acn_cl.benchmarks.datasets import load
from acn_cl.benchmarks.datasets.arrays import ImageDataset, LabelledImages
from acn_cl.benchmarks.datasets.classes import CIFAR100, CIFAR100_SUPER
from acn_cl.benchmarks.datasets.digits import load_digits
from acn_cl.benchmarks.datasets.table import DATASETS, DatasetInfo
from acn_cl.benchmarks.streams.build import build_stream
from acn_cl.benchmarks.streams.pixels import permutation, rotation
from acn_cl.benchmarks.streams.sizes import class_sizes
from acn_cl.benchmarks.streams.stream import Part, Stream
from acn_cl.benchmarks.streams.table import (
    STREAMS,
    check_stream,
    classes_per_experience,
    image_shape,
    training_defaults,
)
from acn_cl.errors import SpecError, UserError
from acn_cl.seeding import Seeds

ORDER = [7, 1, 3, 0, 9, 4, 5, 8, 2, 6]


def made_up(info: DatasetInfo, download: bool = False) -> ImageDataset:
    """Four training images and two test images a class; every pixel of an image holds a digest of its place."""

    def part(per_class: int, salt: int) -> LabelledImages:
        rng = np.random.default_rng([salt, info.classes])
        labels = rng.permutation(np.repeat(np.arange(info.classes), per_class))
        return LabelledImages(rng.integers(0, 256, (len(labels), *info.image_shape), dtype=np.uint8), labels)

    return ImageDataset(info, part(4, 0), part(2, 1), layout="made up")


@pytest.fixture
def every_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every data set is there, tiny and made up, at most 32 pixels a side."""
    for name, info in DATASETS.items():
        small = (min(info.image_size[0], 32),) * 2
        loader = f"{__name__}:made_up"
        monkeypatch.setitem(DATASETS, name, replace(info, image_size=small, loader=loader))
    monkeypatch.setattr(load, "resolve", lambda loader: made_up)


def all_parts(stream: Stream) -> Iterator[tuple[int, str, Part]]:
    for experience in stream.experiences:
        for name in ("train", "test", "validation"):
            part = getattr(experience, name)
            if part is not None:
                yield experience.index, name, part


def folder_of(tmp_path: Path) -> Path:
    """An image folder of six classes."""
    for part in ("train", "test"):
        for label in range(6):
            (tmp_path / "six" / part / f"c{label}").mkdir(parents=True)
            for row in range(3):
                Image.new("RGB", (20, 30), (40 * label, 0, row)).save(
                    tmp_path / "six" / part / f"c{label}" / f"{row}.png"
                )
    return tmp_path / "six"


def section_of(name: str, tmp_path: Path) -> dict[str, Any]:
    own = {"folder": str(folder_of(tmp_path)), "size": 8, "experiences": 3} if name == "split-folder" else {}
    return {"name": name, **own}


# Every line of the table


@pytest.mark.usefixtures("every_data_set")
@pytest.mark.parametrize("name", STREAMS)
def test_every_stream_keeps_its_parts_apart_and_its_labels_straight(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACN_CL_CACHE", str(tmp_path / "cache"))
    if name == "split-folder":
        monkeypatch.undo()
        monkeypatch.setenv("ACN_CL_CACHE", str(tmp_path / "cache"))
    few = {"images_per_class": 2} if name.startswith("few-shot") else {}
    section = check_stream({**section_of(name, tmp_path), "validation": 0.25, **few})
    assert check_stream(section) == section
    stream = build_stream(seeds=Seeds(3), **section)
    assert len(stream) == section["experiences"]
    assert [len(e.classes) for e in stream.experiences] == classes_per_experience(section)
    assert stream.info.image_shape == image_shape(section)
    overlapping = name.startswith(("permuted", "rotated"))
    for experience in stream.experiences:
        held = experience.validation
        assert held is not None
        assert not set(experience.train.indices) & set(held.indices)
        for part in (experience.train, experience.test, held):
            assert set(part.original_labels) == set(experience.classes)
            assert len(part) == len(part.labels) == len(part.images) == len(part.load())
            assert part.labels.min() >= 0
            assert part.labels.max() < stream.output_size(experience.index)
            assert np.all(np.diff(part.indices) > 0)
            assert part.load().shape == (len(part), *stream.info.image_shape)
    for split in ("train", "test"):
        rows = Counter(row for _, _, part in all_parts(stream) if part.split == split for row in part.indices.tolist())
        assert set(rows.values()) == ({len(stream)} if overlapping else {1})
    trained = {row for _, kind, part in all_parts(stream) if kind == "train" for row in part.indices.tolist()}
    held_out = {row for _, kind, part in all_parts(stream) if kind == "validation" for row in part.indices.tolist()}
    assert not trained & held_out


@pytest.mark.usefixtures("every_data_set")
@pytest.mark.parametrize("name", [name for name in STREAMS if name != "split-folder"])
def test_every_stream_is_an_avalanche_benchmark(name: str) -> None:
    few = {"images_per_class": 2} if name.startswith("few-shot") else {}
    stream = build_stream(name, seeds=Seeds(0), validation=0.25, **few)
    benchmark = stream.benchmark()
    for experience in stream.experiences:
        index = experience.index
        for kind in ("train", "test", "valid"):
            part = experience.validation if kind == "valid" else getattr(experience, kind)
            theirs = getattr(benchmark, f"{kind}_stream")[index]
            assert theirs.task_label == (index if stream.scenario == "task-incremental" else 0)
            assert sorted(theirs.classes_in_this_experience) == sorted(set(part.labels.tolist()))
            assert list(theirs.dataset.targets) == part.labels.tolist()
        if index == 0:
            dataset = benchmark.test_stream[0].dataset
            mean, std = (np.reshape(v, (-1, 1, 1)) for v in (stream.info.mean, stream.info.std))
            for row in (0, len(dataset) - 1):
                image, label, task = dataset[row]
                expected = (experience.test.images[row] / 255 - mean) / std
                np.testing.assert_allclose(image.numpy(), expected, atol=1e-5)
                assert (label, task) == (experience.test.labels[row], 0)


# Class orders, seeds and label spaces


def test_a_class_order_is_its_seeds() -> None:
    orders = [build_stream("split-digits", seeds=Seeds(seed)).class_order for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(range(10))
    pinned = build_stream("split-digits", seeds=Seeds(1, {"class_order": 0}))
    assert pinned.class_order == orders[0]


def test_fixed_and_listed_class_orders() -> None:
    assert build_stream("split-digits", class_order="fixed").class_order == tuple(range(10))
    stream = build_stream("split-digits", class_order=ORDER)
    assert [e.classes for e in stream.experiences] == [(7, 1), (3, 0), (9, 4), (5, 8), (2, 6)]


@pytest.mark.parametrize(
    ("labels", "expected", "heads", "outputs"),
    [
        ("per-experience", [{7: 0, 1: 1}, {3: 0, 0: 1}, {9: 0, 4: 1}, {5: 0, 8: 1}, {2: 0, 6: 1}], [2] * 5, [2] * 5),
        (
            "seen-order",
            [{7: 0, 1: 1}, {3: 2, 0: 3}, {9: 4, 4: 5}, {5: 6, 8: 7}, {2: 8, 6: 9}],
            [2, 4, 6, 8, 10],
            [2, 4, 6, 8, 10],
        ),
        (
            "global",
            [{7: 7, 1: 1}, {3: 3, 0: 0}, {9: 9, 4: 4}, {5: 5, 8: 8}, {2: 2, 6: 6}],
            [8, 4, 10, 9, 7],
            [8, 8, 10, 10, 10],
        ),
    ],
)
def test_label_spaces_by_hand(
    labels: Any, expected: list[dict[int, int]], heads: list[int], outputs: list[int]
) -> None:
    stream = build_stream("split-digits", class_order=ORDER, labels=labels)
    for experience, mapping in zip(stream.experiences, expected, strict=True):
        for part in (experience.train, experience.test):
            assert dict(zip(part.original_labels.tolist(), part.labels.tolist(), strict=True)) == mapping
    assert [stream.head_size(i) for i in range(5)] == heads
    assert [stream.output_size(i) for i in range(5)] == outputs


@pytest.mark.parametrize("labels", ["per-experience", "seen-order", "global"])
def test_output_sizes_are_those_of_avalanches_multi_head(labels: Any) -> None:
    import torch
    from avalanche.models import MultiHeadClassifier

    stream = build_stream("split-digits", class_order=ORDER, labels=labels)
    head = MultiHeadClassifier(3, initial_out_features=1)
    for index, experience in enumerate(stream.benchmark().train_stream):
        head.adaptation(experience)
        assert head.classifiers[str(index)].classifier.out_features == stream.head_size(index)
        logits = head(torch.zeros(1, 3), torch.tensor([index]))
        assert logits.shape == (1, stream.output_size(index) if labels != "per-experience" else 2)


def test_the_defaults_of_each_scenario() -> None:
    assert check_stream({"name": "split-digits"})["labels"] == "per-experience"
    assert check_stream({"name": "split-digits", "scenario": "class-incremental"})["labels"] == "seen-order"
    assert check_stream({"name": "split-digits", "scenario": "domain-incremental"})["labels"] == "per-experience"
    assert check_stream({"name": "split-cifar100"})["experiences"] == 20
    assert check_stream({"name": "permuted-mnist"})["scenario"] == "domain-incremental"


def test_null_is_the_streams_default() -> None:
    nulls = {"experiences": None, "scenario": None, "labels": None, "first": None, "images_per_class": None}
    for name in ("split-digits", "few-shot-cifar100", "joint-cifar10"):
        assert check_stream({"name": name, **nulls}) == check_stream({"name": name})


# Held-out parts and few-shot


def test_what_is_held_out_depends_on_the_seed_but_the_test_part_does_not() -> None:
    a, b = (build_stream("split-digits", seeds=Seeds(s), class_order="fixed", validation=0.2) for s in (0, 1))
    again = build_stream("split-digits", seeds=Seeds(0), class_order="fixed", validation=0.2)
    for x, y, z in zip(a.experiences, b.experiences, again.experiences, strict=True):
        assert x.validation is not None
        assert y.validation is not None
        assert z.validation is not None
        np.testing.assert_array_equal(x.validation.indices, z.validation.indices)
        assert set(x.validation.indices) != set(y.validation.indices)
        np.testing.assert_array_equal(x.test.indices, y.test.indices)
        for label in x.classes:
            whole = int((load_digits(DATASETS["digits"]).train.labels == label).sum())
            assert int((x.validation.original_labels == label).sum()) == round(0.2 * whole)


def test_what_is_held_out_of_a_class_does_not_depend_on_its_place() -> None:
    def held(**keys: Any) -> set[int]:
        stream = build_stream("split-digits", seeds=Seeds(4), validation=0.1, **keys)
        return {int(row) for e in stream.experiences if e.validation for row in e.validation.indices}

    assert held(class_order="fixed") == held(class_order=ORDER) == held(experiences=2) == held(images_per_class=20)


def test_holding_out_does_not_change_the_class_order() -> None:
    assert (
        build_stream("split-digits", seeds=Seeds(9), validation=0.3, images_per_class=5).class_order
        == build_stream("split-digits", seeds=Seeds(9)).class_order
    )


def test_few_images_a_class() -> None:
    stream = build_stream("split-digits", images_per_class=7, validation=0.1)
    for experience in stream.experiences:
        assert Counter(experience.train.original_labels.tolist()) == dict.fromkeys(experience.classes, 7)
        assert experience.validation is not None
        assert not set(experience.train.indices) & set(experience.validation.indices)
    assert sum(len(e.test) for e in stream.experiences) == 355


@pytest.mark.usefixtures("every_data_set")
def test_few_shot_keeps_the_first_experience_whole() -> None:
    stream = build_stream("few-shot-cifar100", images_per_class=2)
    assert [len(e.train) for e in stream.experiences] == [240, *[10] * 8]
    thin = build_stream("few-shot-cifar100", images_per_class=2, full_first=False)
    assert [len(e.train) for e in thin.experiences] == [120, *[10] * 8]


def test_too_few_images_are_named() -> None:
    with pytest.raises(SpecError, match=r"images_per_class: class \d has 1\d\d training images, not 500"):
        build_stream("split-digits", images_per_class=500)
    with pytest.raises(SpecError, match=r"validation: 0.001 of a class's 1\d\d images is 0; the least is 0.00"):
        build_stream("split-digits", validation=0.001)


# Properties of the partition

ALLOWED = st.integers(1, 60).flatmap(
    lambda rest: st.tuples(
        st.sampled_from([d for d in range(1, rest + 1) if rest % d == 0]), st.just(rest), st.none() | st.integers(1, 40)
    )
)


@given(ALLOWED, st.randoms(use_true_random=False))
def test_what_is_allowed_partitions_the_classes_exactly(case: tuple[int, int, int | None], random: Any) -> None:
    from acn_cl.benchmarks.streams.plans import Task, split

    parts, rest, first = case
    classes = rest + (first or 0)
    experiences = parts + (first is not None)
    order = list(range(classes))
    random.shuffle(order)
    task = Task(replace(DATASETS["digits"], classes=classes), tuple(order), Seeds(0))
    plan = split(task, experiences=experiences, first=first)
    assert [original for piece in plan for original in piece.classes] == order
    assert len(plan) == experiences
    if first is not None:
        assert len(plan[0].classes) == first
    assert len({len(piece.classes) for piece in plan[first is not None :]}) == 1


@given(st.integers(1, 120), st.integers(1, 130), st.none() | st.integers(1, 130))
def test_sizes_add_up_or_the_error_names_counts_that_work(classes: int, experiences: int, first: int | None) -> None:
    """Against trying out: a count is right when the remaining classes divide by the remaining experiences."""

    def works(count: int) -> bool:
        if first is None:
            return classes % count == 0
        if first == classes or count == 1:
            return first == classes and count == 1
        return (classes - first) % (count - 1) == 0

    if first is not None and first > classes:
        with pytest.raises(SpecError, match=f"there are {classes}"):
            class_sizes(classes, experiences, first)
        return
    if works(experiences):
        sizes = class_sizes(classes, experiences, first)
        assert (sum(sizes), len(sizes)) == (classes, experiences)
        assert min(sizes) > 0
        return
    with pytest.raises(SpecError, match="do not divide into") as error:
        class_sizes(classes, experiences, first)
    named = [int(word) for word in str(error.value).rpartition(": ")[2].split(" or ")]
    right = [count for count in range(1, classes + 2) if works(count)]
    below, above = [n for n in right if n < experiences], [n for n in right if n > experiences]
    assert named == below[-1:] + above[:1]


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(10)), st.sampled_from([1, 2, 5, 10]), st.integers(0, 2**32))
def test_a_stream_of_any_order_and_seed_partitions_the_digits(order: list[int], experiences: int, seed: int) -> None:
    stream = build_stream("split-digits", seeds=Seeds(seed), class_order=order, experiences=experiences, validation=0.1)
    rows = [row for _, _, part in all_parts(stream) if part.split == "train" for row in part.indices.tolist()]
    assert sorted(rows) == list(range(1442))
    for before, after in pairwise(stream.experiences):
        assert not set(before.classes) & set(after.classes)


# Domains


def test_coarse_classes_are_the_published_ones_and_each_comes_once() -> None:
    section = check_stream({"name": "split-cifar100-coarse"})
    from acn_cl.benchmarks.streams.check import plan_of

    plan = plan_of(section, Seeds(5))
    assert len(plan) == 5
    assert sorted(original for piece in plan for original in piece.classes) == list(range(100))
    names = list(CIFAR100_SUPER)
    for piece in plan:
        assert piece.labels is not None
        assert sorted(piece.labels) == list(range(20))
        for original, label in zip(piece.classes, piece.labels, strict=True):
            assert CIFAR100[original] in CIFAR100_SUPER[names[label]]
    other = plan_of(section, Seeds(6))
    assert [set(piece.classes) for piece in plan] != [set(piece.classes) for piece in other]


def test_permutations_are_permutations_and_differ() -> None:
    stream = build_stream("permuted-digits", seeds=Seeds(0), experiences=3)
    source = load_digits(DATASETS["digits"]).train.images
    for experience in stream.experiences:
        images = experience.train.load()
        np.testing.assert_array_equal(
            np.sort(images.reshape(len(images), -1)), np.sort(source.reshape(len(images), -1))
        )
        assert not np.array_equal(images, source)
    first, second = (e.train.load() for e in stream.experiences[:2])
    assert not np.array_equal(first, second)
    again = build_stream("permuted-digits", seeds=Seeds(0), experiences=3)
    np.testing.assert_array_equal(again.experiences[1].train.load(), second)
    # training and test images are permuted alike
    unpermuted = load_digits(DATASETS["digits"])
    order = stream.experiences[0].train.images.pixels
    assert order is not None
    test = unpermuted.test.images.reshape(355, 64)[:, order.source]
    np.testing.assert_array_equal(stream.experiences[0].test.load().reshape(355, 64), test)


def test_a_permutation_moves_all_channels_alike() -> None:
    moved = permutation((5, 7), np.random.default_rng(0))(
        np.tile(np.arange(35, dtype=np.uint8).reshape(1, 1, 5, 7), (2, 3, 1, 1))
    )
    assert np.array_equal(moved[:, 0], moved[:, 1])
    assert sorted(moved[0, 0].ravel()) == list(range(35))


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, -1])
def test_quarter_turns_are_numpys(quarter_turns: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 9, 9), dtype=np.uint8)
    turned = rotation((9, 9), 90 * quarter_turns)(images)
    np.testing.assert_array_equal(turned, np.rot90(images, quarter_turns, axes=(2, 3)))


@pytest.mark.parametrize("degrees", [12.5, 45, -100, 171])
def test_rotations_are_those_of_avalanches_rotated_mnist(degrees: float) -> None:
    from torchvision.transforms import RandomRotation

    image = np.random.default_rng(1).integers(0, 256, (28, 28), dtype=np.uint8)
    expected = np.asarray(RandomRotation((degrees, degrees))(Image.fromarray(image)))
    np.testing.assert_array_equal(rotation((28, 28), degrees)(image[None, None])[0, 0], expected)


def test_rotated_streams_turn_by_the_listed_angles() -> None:
    stream = build_stream("rotated-digits", experiences=2, degrees=[0, 90])
    plain, turned = (e.test.load() for e in stream.experiences)
    np.testing.assert_array_equal(plain, load_digits(DATASETS["digits"]).test.images)
    np.testing.assert_array_equal(turned, np.rot90(plain, axes=(2, 3)))


# Joint and online


def test_joint_streams_take_the_first_classes_of_the_order() -> None:
    stream = build_stream("joint-digits", classes=3, class_order=ORDER)
    (experience,) = stream.experiences
    assert experience.classes == (7, 1, 3)
    assert dict(zip(experience.test.original_labels.tolist(), experience.test.labels.tolist(), strict=True)) == {
        7: 0,
        1: 1,
        3: 2,
    }
    assert stream.output_size(0) == 3


def test_online_streams_ask_for_one_pass_in_small_batches() -> None:
    assert training_defaults({"name": "online-digits"}) == {"epochs": 1, "batch_size": 10}
    assert training_defaults({"name": "split-digits"}) == {}
    stream = build_stream("online-digits")
    assert stream.one_pass
    from avalanche.benchmarks import split_online_stream

    online = list(split_online_stream(stream.benchmark().train_stream, experience_size=10))
    assert sum(len(experience.dataset) for experience in online) == 1442
    assert {len(experience.dataset) for experience in online[:20]} == {10}


# What cannot be


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "split-digts"}, r"unknown stream 'split-digts'; did you mean 'split-digits'\?"),
        ({"experience": 5}, r"experience: there is no such key; did you mean 'experiences'\?"),
        ({"experiences": 3}, "experiences: 10 classes do not divide into 3 experiences; the nearest that do: 2 or 5"),
        ({"experiences": 11}, "the nearest that do: 10$"),
        ({"experiences": 5, "first": 4}, "the 6 classes after the first 4 do not divide into 5 .* that do: 4 or 7"),
        ({"first": 11}, "first: the first experience cannot have 11 classes, there are 10"),
        ({"class_order": [0, 1]}, r"class_order: not a permutation of 0..9: 2, 3, 4, 5, 6 and 3 more missing"),
        ({"class_order": [*range(9), 10]}, "9 missing; 10 no class of digits"),
        ({"class_order": [0, *range(9)]}, "9 missing; 0 more than once"),
        ({"class_order": "sorted"}, "class_order"),
        (
            {"scenario": "class-incremental", "labels": "per-experience"},
            "does not fit class-.*use seen-order or global",
        ),
        ({"scenario": "domain-incremental", "labels": "global"}, "does not fit domain-.*use per-experience"),
        ({"scenario": "domain-incremental", "experiences": 4, "first": 4}, "needs the same labels in every experience"),
        ({"name": "permuted-digits", "scenario": "class-incremental"}, "same classes in every experience"),
        ({"name": "permuted-digits", "first": 4}, "a permuted stream cannot have a larger first experience"),
        ({"name": "rotated-digits", "degrees": [0, 30]}, "2 angles for 10 experiences; set experiences: 2"),
        ({"name": "rotated-digits", "degrees": [0, 200], "experiences": 2}, "degrees.1: .*180, not 200"),
        ({"name": "joint-digits", "experiences": 2}, "a joint stream has 1 experience, not 2"),
        ({"name": "joint-digits", "classes": 11}, "classes: digits has 10 classes, not 11"),
        ({"name": "split-cifar100-coarse", "experiences": 4}, "5 classes do not divide into 4 .*: 1 or 5"),
        ({"name": "split-folder"}, "folder: this key is needed"),
        ({"name": "split-folder", "folder": "/nowhere"}, "no image folder with a train/ in it at /nowhere"),
        ({"stop_after": 6}, "stop_after: the stream has 5 experiences, not 6"),
        ({"validation": 1.0}, "validation: .*less than 1, not 1.0"),
        ({"experiences": "five"}, "experiences: should be a valid integer, not 'five'"),
    ],
)
def test_what_is_not_allowed_says_why(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        check_stream({"name": "split-digits", **keys})
    assert "\n" not in str(error.value)


def test_the_spec_words_the_same_errors() -> None:
    from acn_cl.spec import Experiment

    with pytest.raises(SpecError, match=r"stream.experiences: 100 classes do not divide into 7 .*: 5 or 10"):
        Experiment(stream={"name": "split-cifar100", "experiences": 7})  # type: ignore[arg-type]
    assert Experiment(stream={"name": "split-cifar100"}).stream.experiences == 20  # type: ignore[arg-type]


# Somebody's own

OWN = """
from acn_cl.benchmarks.datasets.load import load_dataset
from acn_cl.benchmarks.streams.assemble import assemble
from acn_cl.benchmarks.streams.plans import Slice

def evens_then_odds(*, seeds, validation=0.0, swap=False):
    plan = [Slice((0, 2, 4, 6, 8)), Slice((1, 3, 5, 7, 9))]
    plan = plan[::-1] if swap else plan
    return assemble("evens-then-odds", load_dataset("digits"), plan, seeds=seeds, validation=validation)

def everything(*, seeds, **keys):
    return keys
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_streams.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_streams", raising=False)
    return "my_streams"


def test_somebodys_own_stream(own_module: str) -> None:
    stream = build_stream(f"{own_module}:evens_then_odds", seeds=Seeds(0), swap=True, validation=0.1)
    assert [e.classes for e in stream.experiences] == [(1, 3, 5, 7, 9), (0, 2, 4, 6, 8)]
    assert stream.experiences[0].validation is not None


def test_somebodys_own_stream_with_a_key_that_it_does_not_take(own_module: str) -> None:
    with pytest.raises(
        UserError, match=r"stream.first: my_streams:evens_then_odds takes no such key, only seeds, valid"
    ):
        build_stream(f"{own_module}:evens_then_odds", first=3)
    with pytest.raises(UserError, match="returned dict, not an acn_cl"):
        build_stream(f"{own_module}:everything")
    with pytest.raises(UserError, match="is known only once it is built"):
        image_shape({"name": f"{own_module}:everything"})


def test_building_a_stream_imports_no_torch() -> None:
    code = (
        "import sys; from acn_cl import build_stream; "
        "s = build_stream('split-digits', seeds=0); s.experiences[0].train.load(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Views


def test_a_part_is_an_array_like() -> None:
    part = build_stream("split-digits").experiences[2].train
    whole = part.load()
    assert whole.dtype == np.uint8
    assert whole.flags.c_contiguous
    assert part.images.shape == whole.shape
    np.testing.assert_array_equal(np.asarray(part.images), whole)
    np.testing.assert_array_equal(part.images[5:9], whole[5:9])
    np.testing.assert_array_equal(part.images[np.array([3, 1])], whole[[3, 1]])
    np.testing.assert_array_equal(part.images[4], whole[4])
    source = load_digits(DATASETS["digits"]).train
    np.testing.assert_array_equal(whole, source.images[part.indices])
    np.testing.assert_array_equal(part.original_labels, source.labels[part.indices])


def test_the_examples_of_the_documentation_run() -> None:
    text = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    examples = [block.partition("```")[0] for block in text.split("```python\n")[1:]]
    assert len(examples) == 6
    for example in examples:
        exec(compile(example, "docs/data.md", "exec"), {"__name__": "example"})


def test_the_documentation_names_every_stream_and_data_set() -> None:
    text = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    families = [name for name in STREAMS if not name.startswith(("joint-", "online-"))]
    assert not [name for name in [*families, *DATASETS] if f"`{name}`" not in text]
    for info in DATASETS.values():
        assert f"{info.train_size:,} + {info.test_size:,}" in text
