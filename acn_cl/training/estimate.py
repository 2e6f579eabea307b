"""What a run will take, worked out from a few passes of made-up images; no data is read."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from acn_cl.backbones.backbone import Backbone
from acn_cl.spec import BackboneSection, Experiment
from acn_cl.tables import resolve
from acn_cl.training.device import autocast, choose_device, choose_precision
from acn_cl.training.placement import fits
from acn_cl.training.randomness import own_random_state
from acn_cl.training.rate import wait
from acn_cl.training.session import build_strategy

OPTIMIZER_COPIES = {"adamw": 2, "adam": 2, "sgd": 1}  # of the parameters
PROBE = 2  # images
Shape = tuple[int, int, int]  # channels, height, width


@dataclass(frozen=True)
class Estimate:
    """One run's size.

    Args:
        steps: optimiser steps over the whole stream.
        operations: of training and testing over the whole stream; those of the strategy and the optimiser left out.
        parameters: of the backbone.
        memory: bytes at the peak of a training step: parameters, gradients, optimiser, what the backward pass needs,
            and the training images unless they have to be streamed. Left out: the strategy's own state, and the work
            space of single operations.
    """

    steps: int
    operations: int
    parameters: int
    memory: int


def estimate(experiment: Experiment) -> Estimate:
    """Steps, operations, parameters and memory of one run."""
    stream = experiment.stream.model_dump()
    info, plan = _data_and_plan(stream)
    sizes = _training_sizes(stream, info, plan)
    passes = _images_an_epoch(experiment, sizes)
    shape = _image_shape(experiment)
    backbone = _backbone(experiment.backbone, shape)
    parameters = sum(p.numel() for p in backbone.parameters())
    device = choose_device(experiment.device)
    precision = choose_precision(experiment.precision, device)
    images = sum(sizes) * math.prod(shape)
    activations = _saved_for_backward(backbone, torch.zeros(PROBE, *shape), precision)
    return Estimate(
        steps=experiment.epochs * sum(-(-size // experiment.batch_size) for size in passes),
        operations=backbone.flops_by_depth()[-1]
        * (3 * experiment.epochs * sum(passes) + _images_tested(stream, info, plan)),
        parameters=parameters,
        memory=4 * parameters * (2 + OPTIMIZER_COPIES[experiment.optimizer.name])
        + activations * -(-experiment.batch_size // experiment.accumulate) // PROBE
        + (images if fits(images, device) else 0),
    )


def _image_shape(experiment: Experiment) -> Shape:
    shape: Shape = resolve("acn_cl.benchmarks.streams.table:image_shape")(experiment.stream.model_dump())
    return shape


def _backbone(section: BackboneSection, shape: Shape) -> Backbone:
    build = resolve("acn_cl.backbones.build:build_backbone")
    with own_random_state(0):
        backbone: Backbone = build(section.name, image_size=shape[1:], channels=shape[0], **section.options())
    return backbone


def _images_an_epoch(experiment: Experiment, sizes: list[int]) -> list[int]:
    """What an epoch of each experience goes over: ``joint``, say, trains on all images so far."""
    says: Callable[[list[int]], list[int]] = getattr(build_strategy(experiment), "images_an_epoch", list)
    return says(sizes)


def _data_and_plan(stream: dict[str, Any]) -> tuple[Any, Any]:
    table = "acn_cl.benchmarks.streams.table"
    return resolve(f"{table}:dataset_of")(stream), resolve(f"{table}:plan_of")(stream)


def _training_sizes(stream: dict[str, Any], info: Any, plan: Any) -> list[int]:
    """Training images of every experience that is trained, if all classes have as many; the data is not opened."""
    a_class = round(info.train_size / info.classes * (1 - stream["validation"]))
    few = min(a_class, stream["images_per_class"] or a_class)
    return [len(piece.classes) * (a_class if piece.full else few) for piece in plan][: stream["stop_after"]]


def _images_tested(stream: dict[str, Any], info: Any, plan: Any) -> int:
    """Images that are looked at in the tests at the ends of experiences: of all experiences so far."""
    a_class = info.test_size / info.classes
    sizes = [round(len(piece.classes) * a_class) for piece in plan][: stream["stop_after"]]
    return sum(accumulate(sizes))


def _saved_for_backward(backbone: nn.Module, images: Tensor, precision: str) -> int:
    """Bytes that a forward pass keeps for the backward pass, each tensor counted once; parameters left out."""
    sizes = {}
    parameters = {p.untyped_storage().data_ptr() for p in backbone.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), autocast(images.device, precision):
        features = backbone(images)  # holds the graph, so that no address is used twice before the sum is taken
    total = sum(size for address, size in sizes.items() if address not in parameters)
    del features
    return total


STEP = 2e-3
"""Seconds of every step in which the optimiser moves the parameters: fitted to a bench, see docs/speed.md."""
TRIAL = 1e11
"""Operations of a step that is tried, about as many at most: a fraction of a second on two cores."""


def seconds(experiment: Experiment, size: Estimate) -> float:
    """How long one run takes here by itself, without what its strategy adds: an order of magnitude.

    A few training steps of the network are timed, with fewer images than the run's where it is large.
    """
    device = choose_device(experiment.device)
    precision = choose_precision(experiment.precision, device)
    section, shape = experiment.backbone.model_dump_json(), _image_shape(experiment)
    rate = _rate(section, shape, experiment.batch_size, device, precision)
    return size.operations / rate + STEP * size.steps


@cache
def _rate(section: str, shape: Shape, batch_size: int, device: torch.device, precision: str) -> float:
    """Operations a second in a forward and backward pass: the better of two tries after one that does not count."""
    backbone = _backbone(BackboneSection.model_validate_json(section), shape)
    an_image = 3 * backbone.flops_by_depth()[-1]
    images = torch.randn(max(PROBE, min(batch_size, int(TRIAL / an_image))), *shape).to(device)
    backbone.to(device)

    def step() -> float:
        wait(device)
        started = time.perf_counter()
        with autocast(device, precision):
            features = backbone(images)
        features.sum().backward()
        wait(device)
        return time.perf_counter() - started

    step()
    return len(images) * an_image / min(step(), step())
