"""What a run will take, worked out from a forward pass of two images; no data is read."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from acn_cl.backbones.backbone import Backbone
from acn_cl.spec import Experiment
from acn_cl.tables import resolve
from acn_cl.training.device import autocast, choose_device, choose_precision
from acn_cl.training.placement import fits
from acn_cl.training.randomness import own_random_state
from acn_cl.training.rate import matrix_rate
from acn_cl.training.session import build_strategy

OPTIMIZER_COPIES = {"adamw": 2, "adam": 2, "sgd": 1}  # of the parameters
PROBE = 2  # images


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
    channels, height, width = resolve("acn_cl.benchmarks.streams.table:image_shape")(stream)
    build = resolve("acn_cl.backbones.build:build_backbone")
    with own_random_state(0):
        backbone: Backbone = build(
            experiment.backbone.name, image_size=(height, width), channels=channels, **experiment.backbone.options()
        )
    parameters = sum(p.numel() for p in backbone.parameters())
    device = choose_device(experiment.device)
    precision = choose_precision(experiment.precision, device)
    images = sum(sizes) * channels * height * width
    activations = _saved_for_backward(backbone, torch.zeros(PROBE, channels, height, width), precision)
    return Estimate(
        steps=experiment.epochs * sum(-(-size // experiment.batch_size) for size in passes),
        operations=backbone.flops_by_depth()[-1]
        * (3 * experiment.epochs * sum(passes) + _images_tested(stream, info, plan)),
        parameters=parameters,
        memory=4 * parameters * (2 + OPTIMIZER_COPIES[experiment.optimizer.name])
        + activations * -(-experiment.batch_size // experiment.accumulate) // PROBE
        + (images if fits(images, device) else 0),
    )


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


SHARE = 0.55  # of the rate of matrix products that a step reaches, and
STEP = 2e-3  # seconds of every step that do not grow with the network: fitted to a bench, see docs/speed.md


def seconds(experiment: Experiment, size: Estimate) -> float:
    """How long one run takes here by itself, without what its strategy adds: an order of magnitude.

    The rate of matrix products is measured at the first call for a device and precision (a few milliseconds).
    """
    device = choose_device(experiment.device)
    rate = _rate(device, choose_precision(experiment.precision, device))
    return size.operations / (SHARE * rate) + STEP * size.steps


_rate = cache(matrix_rate)
