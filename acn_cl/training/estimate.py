"""What a run will take, worked out from a few passes of made-up images; of our streams no data is read."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import torch
from torch import Tensor, nn

from acn_cl.backbones.backbone import Backbone
from acn_cl.spec import BackboneSection, Experiment
from acn_cl.tables import is_dotted, resolve
from acn_cl.training.device import autocast, choose_device, choose_precision
from acn_cl.training.placement import fits
from acn_cl.training.randomness import own_random_state
from acn_cl.training.rate import wait
from acn_cl.training.session import build_strategy, build_stream

OPTIMIZER_COPIES = {"adamw": 2, "adam": 2, "sgd": 1}  # of the parameters
PROBE = 2  # images
Shape = tuple[int, int, int]


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
        image_shape: channels, height, width.
    """

    steps: int
    operations: int
    parameters: int
    memory: int
    image_shape: Shape


def estimate(experiment: Experiment) -> Estimate:
    """Steps, operations, parameters and memory of one run."""
    shape, sizes, tested = _sizes(experiment)
    passes = _images_an_epoch(experiment, sizes)
    backbone = _backbone(experiment.backbone, shape)
    parameters = sum(p.numel() for p in backbone.parameters())
    device = choose_device(experiment.device)
    precision = choose_precision(experiment.precision, device)
    images = sum(sizes) * math.prod(shape)
    activations = _saved_for_backward(backbone, torch.zeros(PROBE, *shape), precision)
    return Estimate(
        steps=experiment.epochs * sum(-(-size // experiment.batch_size) for size in passes),
        operations=backbone.flops_by_depth()[-1]
        * (3 * experiment.epochs * sum(passes) + sum(accumulate(tested))),  # each test is of all experiences so far
        parameters=parameters,
        memory=4 * parameters * (2 + OPTIMIZER_COPIES[experiment.optimizer.name])
        + activations * -(-experiment.batch_size // experiment.accumulate) // PROBE
        + (images if fits(images, device) else 0),
        image_shape=shape,
    )


def _backbone(section: BackboneSection, shape: Shape) -> Backbone:
    build = resolve("acn_cl.backbones.build:build_backbone")
    with own_random_state(0):
        backbone: Backbone = build(section.name, image_size=shape[1:], channels=shape[0], **section.options())
    return backbone


def _images_an_epoch(experiment: Experiment, sizes: list[int]) -> list[int]:
    """What an epoch of each experience goes over: ``joint``, say, trains on all images so far."""
    says: Callable[[list[int]], list[int]] = getattr(build_strategy(experiment), "images_an_epoch", list)
    return says(sizes)


def _sizes(experiment: Experiment) -> tuple[Shape, list[int], list[int]]:
    """An image's shape, and the training and test images of every experience that is trained.

    Of our streams no data is opened, and all classes are taken to have as many images. Somebody's own is built.
    """
    section = experiment.stream.model_dump()
    if is_dotted(experiment.stream.name):
        stream = build_stream(experiment, experiment.seeds_of(experiment.seeds[0]))
        trained = stream.experiences[: stream.stop_after]
        return stream.info.image_shape, [len(e.train) for e in trained], [len(e.test) for e in trained]
    table = "acn_cl.benchmarks.streams.table"
    info, plan = resolve(f"{table}:dataset_of")(section), resolve(f"{table}:plan_of")(section)
    a_class = round(info.train_size / info.classes * (1 - section["validation"]))
    few = min(a_class, section["images_per_class"] or a_class)
    trained = plan[: section["stop_after"]]
    return (
        resolve(f"{table}:image_shape")(section),
        [len(piece.classes) * (a_class if piece.full else few) for piece in trained],
        [round(len(piece.classes) * info.test_size / info.classes) for piece in trained],
    )


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
    section = experiment.backbone.model_dump_json()
    rate = _rate(section, size.image_shape, experiment.batch_size, device, precision)
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
