"""Images that do not fit on the device: streamed from the host, they give the numbers that they give there."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from acn_cl.benchmarks.datasets.load import dataset_info
from acn_cl.benchmarks.streams.build import build_stream
from acn_cl.benchmarks.streams.transforms import BatchTransform
from acn_cl.errors import UserError
from acn_cl.runner import Quiet, run
from acn_cl.runs.weights import load_weights
from acn_cl.seeding import Seeds
from acn_cl.spec import Experiment
from acn_cl.training import images as images_module
from acn_cl.training import placement
from acn_cl.training.batches import DeviceData, TrainingBatches
from acn_cl.training.estimate import estimate
from acn_cl.training.images import HostImages, joined
from acn_cl.training.stack import StackSession

CPU = torch.device("cpu")


class Notes(Quiet):
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


@pytest.fixture
def no_room(monkeypatch):
    """As if ten thousand bytes were free, a tenth of what the digits take."""
    return lambda: monkeypatch.setattr(placement, "free_memory", lambda device: 10_000)


def same_results(a, b):
    for table in ("accuracy", "layers"):
        one, other = (pd.read_parquet(f / "experiment" / "seed-0" / f"{table}.parquet") for f in (a, b))
        pd.testing.assert_frame_equal(one, other)
    one, other = (load_weights(f / "experiment" / "seed-0") for f in (a, b))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def recorded(folder):
    return json.loads((folder / "experiment/seed-0/spec.json").read_text())["images"]


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": {"name": "naive"}},
        {"strategy": {"name": "si"}, "stream": {"name": "permuted-digits", "experiences": 2}},
        {"strategy": {"name": "ewc", "augmented": True}, "engine": "avalanche"},
        {"strategy": {"name": "replay", "memory": 50}, "corruptions": ["gaussian-0.1"]},
        {"strategy": {"name": "cumulative"}},
        {"strategy": {"name": "icarl", "memory": 50}},
        {"strategy": {"name": "gdumb", "memory": 50}},
    ],
    ids=lambda changes: changes["strategy"]["name"],
)
def test_a_streamed_run_gives_the_same_bits(tiny, tmp_path, no_room, stopped, changes):
    """And so it does when it is stopped in the middle of an epoch and goes on."""
    stream = {"name": "split-digits", "stop_after": 2, "validation": 0.2}
    spec = tiny(stream=stream, epochs=2, batch_size=50) | {"corruptions": ["salt-pepper-0.1"]} | changes
    notes = Notes()
    run(Experiment(**spec), tmp_path / "resident", notes)
    assert recorded(tmp_path / "resident") == "on the device" and not notes.lines
    no_room()
    stopped(Experiment(**spec), tmp_path / "streamed", 1)
    run(Experiment(**spec), tmp_path / "streamed", notes)
    assert recorded(tmp_path / "streamed") == "streamed"
    assert sum("streamed from the host" in line for line in notes.lines) == 1
    same_results(tmp_path / "resident", tmp_path / "streamed")


def test_images_that_are_encoded_on_disk_are_decoded_while_they_stream(tiny, tmp_path, no_room, monkeypatch):
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 2)):
        for label in ("cat", "dog"):
            (tmp_path / "pictures" / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (90, 100, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pictures" / part / label / f"{number}.png")
    monkeypatch.setenv("ACN_CL_CACHE", str(tmp_path / "cache"))
    stream = {"name": "split-folder", "folder": str(tmp_path / "pictures"), "size": 80, "experiences": 2}
    spec = tiny(stream=stream, backbone={"name": "ac_mixer", "depth": 1, "width": 8, "patch": 20}, batch_size=4)
    run(Experiment(**spec), tmp_path / "resident")
    no_room()
    run(Experiment(**spec), tmp_path / "streamed")
    assert recorded(tmp_path / "streamed") == "streamed" and not (tmp_path / "cache").exists()
    same_results(tmp_path / "resident", tmp_path / "streamed")


def test_a_stack_is_streamed_too(tiny, no_room):
    """Two runs with images of their own gather from one pool."""

    class Silent(Quiet):
        def save(self, checkpoint):
            pass

    def weights():
        stream = {"name": "split-digits", "stop_after": 2, "class_order": "fixed", "images_per_class": 60}
        experiment = Experiment(**tiny(stream=stream, engine="stacked", seeds=[0, 1]))
        session = StackSession([(experiment, 0), (experiment, 1)])
        session.train([Silent(), Silent()])
        return [run.weights for run in session.runs], session.runs[0].streamed

    resident, _ = weights()
    no_room()
    streamed, was = weights()
    assert was
    for one, other in zip(resident, streamed, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("threads", [1, 4])
def test_order_and_augmentation_are_those_of_resident_images(monkeypatch, threads):
    """Crops and flips, from the middle of the second epoch on, however many threads gather."""
    monkeypatch.setattr(images_module, "_threads", lambda device: threads)
    info = replace(dataset_info("digits"), padding=2, flip=True)
    part = build_stream("split-digits", seeds=0).experiences[0].train

    def batches(streamed):
        data = DeviceData.of(part, CPU, streamed)
        found = TrainingBatches(data, BatchTransform(info), 32, Seeds(3), experience=0, task=0)
        found.epoch, found.batch = 1, 2
        return list(found)

    for one, other in zip(batches(False), batches(True), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_joined_images_are_one_after_the_other():
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 256, (count, 1, 2, 2), np.uint8) for count in (3, 1, 4)]
    expected = torch.from_numpy(np.concatenate(parts))
    on_host = joined([HostImages(parts[0], CPU), torch.from_numpy(parts[1]), HostImages(parts[2], CPU)])
    assert len(on_host) == 8 and on_host.shape == expected.shape
    for rows in (slice(None), slice(2, 5), torch.tensor([7, 0, 3, 3, 2])):
        assert torch.equal(on_host[rows], expected[rows])
    assert torch.equal(joined([torch.from_numpy(part) for part in parts]), expected)


def test_what_is_wrong_with_an_image_reaches_whoever_waits_for_it():
    class Damaged:
        shape = (4, 1, 2, 2)

        def __getitem__(self, rows):
            if 3 in rows:
                raise UserError("3.png: not a readable image")
            return np.zeros((len(rows), 1, 2, 2), np.uint8)

    found = HostImages(Damaged(), CPU).ahead([slice(0, 2), slice(2, 4)])
    assert len(next(found)) == 2
    with pytest.raises(UserError, match="not a readable image"):
        next(found)


def test_a_reader_that_stops_leaves_no_thread():
    source = np.zeros((100, 1, 2, 2), np.uint8)
    found = HostImages(source, CPU).ahead([slice(i, i + 1) for i in range(100)])
    next(found)
    found.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]


def test_what_fits_is_a_share_of_what_is_free(monkeypatch):
    monkeypatch.setattr(placement, "free_memory", lambda device: 1000)
    assert placement.fits(700, CPU) and not placement.fits(701, CPU)


def test_the_free_memory_is_the_machines(monkeypatch):
    """Of several processes on one machine each may count on its part."""
    psutil = pytest.importorskip("psutil")
    assert 0 < placement.free_memory(CPU) <= psutil.virtual_memory().total
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 3000}))
    for name, value in {
        "RANK": 0,
        "WORLD_SIZE": 4,
        "LOCAL_WORLD_SIZE": 2,
        "MASTER_ADDR": "a",
        "MASTER_PORT": 1,
    }.items():
        monkeypatch.setenv(name, str(value))
    assert placement.free_memory(CPU) == 1500


def test_a_dry_run_counts_images_only_where_they_fit(tiny, no_room):
    experiment = Experiment(**tiny())
    whole = estimate(experiment).memory
    no_room()
    assert whole - estimate(experiment).memory == 1440 * 64, "144 training images of each digit"


def test_images_of_a_run_are_counted_once(tiny):
    experiment = Experiment(**tiny(stream={"name": "split-digits", "stop_after": 2, "class_order": "fixed"}))
    stream = build_stream(experiment.stream.name, seeds=0, **experiment.stream.options())
    parts = list(placement.parts_of(stream, 2))
    trained = sum(len(e.train) for e in stream.experiences[:2])
    assert placement.bytes_of(parts) == 64 * (trained + sum(len(e.test) for e in stream.experiences))
    from acn_cl.training.stack_data import pool_size

    assert pool_size([*parts, *parts]) == placement.bytes_of(parts)


def test_the_note_says_how_much_and_where(tmp_path: Path, tiny, no_room):
    notes = Notes()
    no_room()
    run(Experiment(**tiny(stream={"name": "split-digits", "stop_after": 1})), tmp_path, notes)
    (line,) = notes.lines
    assert "1e-05 GB free on cpu" in line and "70%" in line
