"""Batches that are computed in parts: their law, one process after the other, and what cannot be done in parts."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from avalanche.core import SupervisedPlugin
from hypothesis import given
from hypothesis import strategies as st

from acn_cl.benchmarks.datasets.load import dataset_info
from acn_cl.benchmarks.streams.transforms import BatchTransform
from acn_cl.errors import SpecError
from acn_cl.recipe import Planned
from acn_cl.runner import check_engine, run
from acn_cl.runs.weights import load_weights
from acn_cl.seeding import Seeds
from acn_cl.spec import Experiment
from acn_cl.strategies.build import build_strategy
from acn_cl.strategies.table import STRATEGIES
from acn_cl.training.batches import DeviceData, TrainingBatches
from acn_cl.training.device import choose_device
from acn_cl.training.estimate import estimate
from acn_cl.training.images import HostImages
from acn_cl.training.launch import Launch, launch
from acn_cl.training.parts import pieces, share_of
from acn_cl.training.world import World

STREAM = {"name": "split-digits", "stop_after": 2, "images_per_class": 41}  # the last batch of 32 has 18 images
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "here"}


@pytest.fixture
def one_of_two(monkeypatch):
    """As if torchrun had started this process and another."""
    for name, value in (TORCHRUN | {"MASTER_PORT": "29500"}).items():
        monkeypatch.setenv(name, value)


@given(st.integers(1, 200), st.integers(1, 20))
def test_pieces_are_all_of_it_and_as_equal_as_can_be(count, parts):
    found = pieces(count, parts)
    assert [row for piece in found for row in range(count)[piece]] == list(range(count))
    sizes = {piece.stop - piece.start for piece in found}
    assert max(sizes) - min(sizes) <= 1 and min(sizes) > 0 and len(found) == min(count, parts)


@given(st.integers(1, 200), st.integers(1, 20))
def test_the_shares_of_several_processes_are_a_batch(count, size):
    shares = [share_of(count, rank, size) for rank in range(size)]
    assert sum(weight for _, weight in shares) == pytest.approx(1)
    assert [row for share, weight in shares if weight for row in range(count)[share]] == list(range(count))
    assert all(len(range(count)[share]) >= 1 for share, _ in shares), "whoever has none takes part all the same"
    assert all(weight == pytest.approx(len(range(count)[share]) / count) for share, weight in shares if weight)


@pytest.mark.parametrize("streamed", [False, True])
def test_each_process_reads_and_augments_its_share_alone(streamed):
    """Images, crops and flips of the whole batch, cut in two; 13 images in batches of 4."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (13, 1, 8, 8), dtype=np.uint8)
    read = []

    class Source:
        shape = images.shape

        def __getitem__(self, rows):
            read.append(len(rows))
            return images[rows]

    def batches(rank, size):
        held = HostImages(Source(), torch.device("cpu")) if streamed else torch.from_numpy(images)
        data = DeviceData(held, torch.arange(13))
        transform = BatchTransform(replace(dataset_info("digits"), padding=2, flip=True))
        found = TrainingBatches(data, transform, 4, Seeds(1), 0, torch.arange(13) % 3, World(Launch(rank, size)))
        return [(*batch, found.weight) for batch in found]

    whole = batches(0, 1)
    read.clear()
    shares = [batches(rank, 2) for rank in range(2)]
    assert not streamed or read == [2, 2, 2, 1] * 2, "the last image is read by both, and weighs nothing in the second"
    for number, (*expected, _) in enumerate(whole):
        parts = [shares[rank][number] for rank in range(2) if shares[rank][number][-1]]
        assert sum(part[-1] for part in parts) == 1
        for column, tensor in enumerate(expected):
            assert torch.equal(torch.cat([part[column] for part in parts]), tensor)


def finished(spec, out):
    experiment = Experiment(**spec)
    run(experiment, out)
    folder = out / "experiment/seed-0"
    return (
        load_weights(folder),
        pd.read_parquet(folder / "layers.parquet"),
        pd.read_parquet(folder / "accuracy.parquet"),
    )


def same(a, b, tolerance):
    for name in a[0]:
        torch.testing.assert_close(a[0][name], b[0][name], rtol=tolerance, atol=tolerance)
    for one, other in zip(a[1:], b[1:], strict=True):
        pd.testing.assert_frame_equal(one, other, rtol=1e-5, atol=1e-6)  # losses of a test are taken in fp32


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": {"name": "naive"}, "loss": {"cutmix": 0.5, "label_smoothing": 0.1}},
        {"strategy": {"name": "si", "lambda": 10}, "optimizer": {"clip_norm": 0.5}},
        {"strategy": {"name": "ewc", "lambda": 100}},
        {"strategy": {"name": "naive"}, "engine": "avalanche", "loss": {"cutmix": 0.5}},
        {"strategy": {"name": "si"}, "engine": "avalanche", "schedule": {"name": "cosine"}},
        {"strategy": {"name": "a-gem", "memory": 40}},
        {"strategy": {"name": "gem", "memory": 40}},
        {"strategy": {"name": "cumulative"}},
        {"strategy": {"name": "joint"}},
        {"strategy": {"name": "gdumb", "memory": 50}, "loss": {"label_smoothing": 0.1}},
    ],
    ids=lambda changes: changes["strategy"]["name"] + changes.get("engine", ""),
)
def test_a_batch_in_parts_is_the_batch(tiny, tmp_path, double, changes):
    """float64, two experiences, batches that the parts do not divide: parameters to 1e-10."""
    spec = tiny(stream=STREAM, batch_size=32) | {"optimizer": {"name": "sgd", "lr": 0.1}} | changes
    whole = finished(spec, tmp_path / "whole")
    parts = finished(spec | {"accumulate": 5}, tmp_path / "parts")
    same(whole, parts, 1e-10)


def test_in_fp32_it_is_so_up_to_rounding(tiny, tmp_path):
    spec = tiny(stream=STREAM, batch_size=32, optimizer={"name": "sgd", "lr": 0.1})
    same(finished(spec, tmp_path / "whole"), finished(spec | {"accumulate": 3}, tmp_path / "parts"), 1e-5)


def test_only_a_part_is_in_memory(tiny):
    backbone = {"name": "ac_mixer", "depth": 8, "width": 64, "patch": 2}
    whole, parts = (estimate(Experiment(**tiny(backbone=backbone, accumulate=n))).memory for n in (1, 64))
    assert parts < 0.2 * whole


def refused(spec):
    experiment = Experiment(**spec)
    with pytest.raises(SpecError) as caught:
        check_engine(Planned("it", {}, experiment))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_that_looks_into_a_step_is_refused(tiny, name):
    """Whoever overrides what happens between a batch and its gradient cannot say that parts are as good."""
    strategy = build_strategy(name)
    within = ("before_training_iteration", "before_forward", "after_forward", "before_backward")
    looks = any(getattr(type(strategy), hook) is not getattr(SupervisedPlugin, hook) for hook in within)
    assert strategy.in_parts is not looks
    if looks:
        assert refused(tiny(strategy={"name": name}, accumulate=2)).startswith(f"accumulate: {name} may need")
    else:
        check_engine(Planned("it", {}, Experiment(**tiny(strategy={"name": name}, accumulate=2))))


def test_more_parts_than_images_are_refused(tiny):
    with pytest.raises(SpecError, match="accumulate: a batch of 64 images has no 65 parts"):
        Experiment(**tiny(accumulate=65))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"strategy": {"name": "replay"}}, "strategy.name: replay may need a step's images"),
        ({"strategy": {"name": "avalanche.training.plugins:LwFPlugin"}}, "it trains in one process only"),
        ({"engine": "stacked"}, "engine: 2 processes train one run after the other; use auto"),
        ({"loss": {"cutmix": 0.5}}, "loss.cutmix: an image would be mixed with another process's"),
        ({"loggers": ["tensorboard"]}, "loggers: Avalanche's would see one of 2 shares"),
    ],
)
def test_what_several_processes_cannot_do_is_one_line(tiny, one_of_two, changes, says):
    assert says in refused(tiny() | changes)


def test_several_processes_take_a_gpu_each(one_of_two, monkeypatch):
    assert launch() == Launch(1, 2, 1, 2)
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda:1")
    with pytest.raises(SpecError, match="2 processes cannot share cuda:0; use auto, cuda or cpu"):
        choose_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SpecError, match="2 processes for 1 CUDA devices"):
        choose_device("auto")


def test_a_schedulers_variables_alone_start_nothing_together(monkeypatch):
    """Slurm's jobs and other launchers set some of them."""
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert launch() == Launch()


def test_a_folder_from_before_there_were_parts_goes_on(tiny, tmp_path):
    run(Experiment(**tiny(stream=STREAM)), tmp_path)
    path = tmp_path / "experiment/seed-0/spec.json"
    path.write_text(path.read_text().replace('"accumulate": 1,', ""))
    assert [outcome.state for outcome in run(Experiment(**tiny(stream=STREAM)), tmp_path)] == ["skipped"]
