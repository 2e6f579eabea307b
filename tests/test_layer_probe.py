"""What a run records of its layers and of its answers, against a naive computation from its weights."""

import json
import random
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch.nn import functional as F

from acn_cl.runner import run
from acn_cl.runs.weights import load_weights
from acn_cl.seeding import Seeds
from acn_cl.spec import Experiment
from acn_cl.training import layer_probe
from acn_cl.training.layer_probe import Alone, LayerProbe
from acn_cl.training.session import Session, build_network, build_stream
from acn_cl.training.stack_data import own_images

CLASS_INCREMENTAL = {"name": "split-digits", "scenario": "class-incremental"}


class DrawsGlobally(SupervisedPlugin):
    """A foreign strategy whose every step depends on the global generators."""

    def before_forward(self, strategy, **_):
        strategy.mb_x.add_(torch.randn(()) * 0.01 + random.gauss(0, 0.01) + np.random.normal(0, 0.01))  # noqa: NPY002


@pytest.fixture(autouse=True)
def own_names(monkeypatch):
    monkeypatch.setitem(sys.modules, "test_layer_probe_names", sys.modules[__name__])


def recorded(out, table, seed=0):
    return pd.read_parquet(out / f"experiment/seed-{seed}/{table}.parquet")


def learned(experiment, out, experiences):
    """The stream and the network of a finished run, from its stored weights."""
    stream = build_stream(experiment, Seeds(0))
    network = build_network(experiment, Seeds(0), stream)
    network.heads.grow(experiences - 1, torch.device("cpu"))
    network.load_state_dict(load_weights(out / "experiment/seed-0"))
    return stream, network


def normalised(part, stream, most):
    """Evenly spread images of a part, as the network sees them, and their labels."""
    count = min(most, len(part))
    rows = [i * len(part) // count for i in range(count)]
    pixels = torch.tensor(part.load()[rows]) / 255
    return (pixels - stream.info.mean[0]) / stream.info.std[0], torch.tensor(part.labels[rows])


def naive_cka(x, y):
    """By Gram matrices and the centring matrix, as Kornblith et al. define HSIC."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    H = np.eye(len(x)) - 1 / len(x)
    K, L = H @ x @ x.T @ H, H @ y @ y.T @ H
    return np.trace(K @ L) / np.sqrt(np.trace(K @ K) * np.trace(L @ L))


def test_drift_is_the_cka_of_the_first_experiences_features_then_and_now(tiny, tmp_path):
    """The features then are those of a run that stops there."""
    run(Experiment(**tiny(stream={"name": "split-digits", "stop_after": 1})), tmp_path / "then")
    experiment = Experiment(**tiny())
    run(experiment, tmp_path / "now")
    stream, then = learned(experiment, tmp_path / "then", 1)
    _, now = learned(experiment, tmp_path / "now", 5)
    images, _ = normalised(stream.experiences[0].test, stream, layer_probe.DRIFT_IMAGES)
    with torch.no_grad():
        before, after = then.backbone.forward_depths(images), now.backbone.forward_depths(images)
    rows = recorded(tmp_path / "now", "layers")
    rows = rows[rows.quantity == "cka"]
    assert set(zip(rows.trained, rows.layer, rows.epoch, strict=True)) == {
        (t, k, -1) for t in range(1, 5) for k in range(3)
    }
    at_the_end = rows[rows.trained == 4].sort_values("layer").value
    expected = [naive_cka(*pair) for pair in zip(before, after, strict=True)]
    np.testing.assert_allclose(at_the_end, expected, rtol=1e-5)
    assert at_the_end.max() < 0.999, "something moved"


def test_direct_share_is_that_of_the_learned_network(tiny, tmp_path):
    """Of an ACN, whose layers' outputs and their sum are kept here one by one."""
    experiment = Experiment(**tiny(stream=CLASS_INCREMENTAL))
    run(experiment, tmp_path)
    stream, network = learned(experiment, tmp_path, 5)
    images, labels = normalised(stream.experiences[4].train, stream, layer_probe.GRADIENT_IMAGES)
    x = [network.backbone.embedding(images)]
    for block in network.backbone.blocks:
        x.append(block(x[-1]))
    y = sum(x)
    loss = F.cross_entropy(network.heads(network.backbone.features(y), 4), labels)
    direct, *full = torch.autograd.grad(loss, [y, *x])
    expected = [(direct.double().norm() / g.double().norm()).item() for g in full]
    rows = recorded(tmp_path, "layers")
    rows = rows[(rows.quantity == "direct_gradient_share") & (rows.trained == 4)].sort_values("layer")
    np.testing.assert_allclose(rows.value, expected, rtol=1e-4)
    assert (
        list(rows.layer) == [0, 1, 2] and expected[2] == pytest.approx(1) and expected[0] != pytest.approx(1, abs=0.01)
    )


@pytest.mark.parametrize(("backbone", "split"), [({"wiring": "highway"}, False), ({"wiring": "residual"}, True)])
def test_the_share_is_recorded_where_there_is_a_direct_path(tiny, tmp_path, backbone, split):
    block = {"block": "mixer", "depth": 2, "width": 16, "patch": 4}
    run(Experiment(**tiny(backbone=block | backbone, stream={"name": "split-digits", "stop_after": 2})), tmp_path)
    assert ("direct_gradient_share" in set(recorded(tmp_path, "layers").quantity)) == split
    assert "cka" in set(recorded(tmp_path, "layers").quantity)


def probe_of(network, stream, images):
    class Plain:
        def evaluate(self, images):
            return images

    part = own_images([images], torch.zeros(1, len(images), dtype=torch.int64), streamed=False)
    return LayerProbe(Alone(network), part, Plain()), part


def test_a_network_that_stays_has_not_drifted_and_another_has(tiny):
    experiment = Experiment(**tiny())
    stream = build_stream(experiment, Seeds(0))
    network = build_network(experiment, Seeds(0), stream)
    network.heads.grow(0, torch.device("cpu"))
    images = torch.randn(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    probe, part = probe_of(network, stream, images)
    assert "cka" not in probe.after(0, part, 0)
    (unchanged,) = probe.after(1, part, 0)["cka"]
    assert unchanged == pytest.approx([1, 1, 1])
    with torch.no_grad():
        for parameter in network.backbone.blocks[1].parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    (changed,) = probe.after(2, part, 0)["cka"]
    assert changed[:2] == pytest.approx([1, 1]) and changed[2] < 0.99, "below the change all is as it was"


def test_what_was_learned_goes_on_from_its_state(tiny):
    experiment = Experiment(**tiny())
    stream = build_stream(experiment, Seeds(0))
    network = build_network(experiment, Seeds(0), stream)
    network.heads.grow(0, torch.device("cpu"))
    images = torch.randn(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    (probe, part), (other, _), (begun_earlier, _) = (probe_of(network, stream, images) for _ in range(3))
    assert probe.state(0) == {}
    probe.after(0, part, 0)
    other.load([probe.state(0)])
    begun_earlier.load([{}])
    with torch.no_grad():
        network.backbone.embedding.requires_grad_(False)
        next(network.backbone.parameters()).mul_(3).add_(1)
    assert probe.after(1, part, 0) == other.after(1, part, 0)
    assert "cka" not in begun_earlier.after(1, part, 0)


def test_images_of_a_part_that_is_sorted_by_class_are_of_every_class():
    labels = torch.arange(20).repeat_interleave(100)[None]
    part = layer_probe._spread(own_images([torch.zeros(2000, 1, 2, 2)], labels, streamed=False), 128)
    assert len(part) == 128 and set(part.labels[0].tolist()) == set(range(20))
    assert len(layer_probe._spread(own_images([torch.zeros(5, 1, 2, 2)], labels[:, :5], streamed=False), 128)) == 5


@pytest.mark.parametrize("strategy", [{"name": "si", "lambda": 10}, {"name": "test_layer_probe_names:DrawsGlobally"}])
@pytest.mark.parametrize("optimizer", [{"state": "carry"}])
def test_measuring_changes_no_bit_of_the_run(tiny, tmp_path, monkeypatch, strategy, optimizer):
    """Alone with the lean step, and through Avalanche's call-backs with numbers drawn globally."""
    experiment = Experiment(**tiny(strategy=strategy, optimizer=optimizer, stream=CLASS_INCREMENTAL))
    run(experiment, tmp_path / "measured")
    monkeypatch.setattr(LayerProbe, "after", lambda *_: {})
    run(experiment, tmp_path / "not")
    ours, theirs = (load_weights(tmp_path / name / "experiment/seed-0") for name in ("measured", "not"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs) and ours.keys() == theirs.keys()
    pd.testing.assert_frame_equal(*(recorded(tmp_path / name, "accuracy") for name in ("measured", "not")))
    assert "cka" in set(recorded(tmp_path / "measured", "layers").quantity)
    assert "cka" not in set(recorded(tmp_path / "not", "layers").quantity)


def test_no_gradient_is_left_behind_and_the_mode_is_kept(tiny, tmp_path):
    session = Session(Experiment(**tiny()), 0, tmp_path)
    network = session.network
    network.heads.grow(0, torch.device("cpu"))
    network.train()
    images = torch.randn(30, 1, 8, 8)
    probe, part = probe_of(network, session.stream, images)
    probe.after(0, part, 0)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(module.training for module in network.modules())


# --- confusion --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["seen-order", "global"])
def test_confusion_is_what_the_learned_network_answers(tiny, tmp_path, labels):
    """Counted image by image from the stored weights."""
    experiment = Experiment(**tiny(stream=CLASS_INCREMENTAL | {"labels": labels}))
    run(experiment, tmp_path)
    stream, network = learned(experiment, tmp_path, 5)
    home = {label: e.index for e in stream.experiences for label in e.train.labels.tolist()}
    counts = np.zeros((5, 5), dtype=int)
    for experience in stream.experiences:
        images, _ = normalised(experience.test, stream, 10_000)
        for image in images:
            with torch.no_grad():
                counts[experience.index, home[network(image[None], 0).argmax().item()]] += 1
    rows = recorded(tmp_path, "confusion")
    last = rows[rows.trained == 4].pivot(index="evaluated", columns="predicted", values="count")
    np.testing.assert_array_equal(last.reindex(columns=range(5)).fillna(0), counts)
    assert set(zip(rows.trained, rows.evaluated, strict=True)) == {(t, j) for t in range(5) for j in range(t + 1)}
    assert (rows.predicted <= rows.trained).all() and (rows["count"] > 0).all()


def test_with_a_class_an_experience_the_diagonal_is_the_accuracy(tiny, tmp_path):
    run(Experiment(**tiny(stream=CLASS_INCREMENTAL | {"experiences": 10}, epochs=2)), tmp_path)
    confusion = recorded(tmp_path, "confusion")
    images = confusion.groupby(["trained", "evaluated"])["count"].sum()
    right = confusion[confusion.evaluated == confusion.predicted].set_index(["trained", "evaluated"])["count"]
    right = right.reindex(images.index, fill_value=0)
    accuracy = recorded(tmp_path, "accuracy")
    accuracy = accuracy[accuracy.depth == 2].set_index(["trained", "evaluated"])
    pd.testing.assert_series_equal((right / images).sort_index(), accuracy.accuracy.sort_index(), check_names=False)
    pd.testing.assert_series_equal(
        images.sort_index(), accuracy.samples.sort_index(), check_names=False, check_dtype=False
    )


def test_with_several_classes_the_diagonal_is_at_least_the_accuracy(tiny, tmp_path):
    run(Experiment(**tiny(stream=CLASS_INCREMENTAL, strategy={"name": "replay"})), tmp_path)
    confusion = recorded(tmp_path, "confusion")
    diagonal = confusion[confusion.evaluated == confusion.predicted].set_index(["trained", "evaluated"])["count"]
    accuracy = recorded(tmp_path, "accuracy")
    accuracy = accuracy[accuracy.depth == 2].set_index(["trained", "evaluated"])
    right = (accuracy.accuracy * accuracy.samples).round()
    assert (diagonal.reindex(right.index, fill_value=0) >= right).all() and (right > 0).any()


@pytest.mark.parametrize("stream", [{"name": "split-digits"}, {"name": "permuted-digits", "experiences": 2}], ids=str)
def test_where_experiences_share_no_growing_output_there_is_no_confusion(tiny, tmp_path, stream):
    run(Experiment(**tiny(stream=stream)), tmp_path)
    assert recorded(tmp_path, "confusion").empty


# --- the data set -----------------------------------------------------------------------------------------------------


def test_spec_json_says_which_images_it_was(tiny, tmp_path):
    for name, changes in (("a", {}), ("b", {"stream": CLASS_INCREMENTAL, "seeds": [3]})):
        run(Experiment(**tiny(**changes)), tmp_path / name)
    first, second = (json.loads(next((tmp_path / n).rglob("spec.json")).read_text()) for n in ("a", "b"))
    assert len(first["data_checksum"]) == 64 and first["data_checksum"] == second["data_checksum"]


def test_a_run_does_not_go_on_with_other_images(tiny, tmp_path, stopped):
    experiment = Experiment(**tiny(epochs=2))
    stopped(experiment, tmp_path, 3)
    path = tmp_path / "experiment/seed-0/spec.json"
    spec = json.loads(path.read_text())
    path.write_text(json.dumps(spec | {"data_checksum": "0" * 64}))
    (outcome,) = run(experiment, tmp_path)
    assert outcome.state == "failed" and "other images" in outcome.error
    assert json.loads(path.read_text())["data_checksum"] == "0" * 64, "what was begun is not overwritten"
    path.write_text(json.dumps({key: value for key, value in spec.items() if key != "data_checksum"}))
    assert [o.state for o in run(experiment, tmp_path)] == ["done"], "an older folder says nothing about it"
