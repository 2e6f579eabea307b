"""Plain Avalanche, as its users write it: what the suite's speed is compared with.

Avalanche's own benchmark, strategies, multi-head classifier and data loader, images as PIL, transforms by torchvision;
nothing of ours but the backbone. Not used for any result.

As a program it trains in a process of its own, where nothing that we set for ours holds: it reads one line of JSON
(``experiment``, ``seed``, ``device``, ``threads``), then an experience's index a line, and answers with the seconds
that training on it took.
"""

import json
import sys
import time
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.logging import BaseLogger
from avalanche.models import MultiHeadClassifier, MultiTaskModule
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import EWC, Naive, SynapticIntelligence
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import transforms

from acn_cl.errors import UserError
from acn_cl.spec import Experiment
from acn_cl.training.session import build_network, build_stream


class PilImages(Dataset[tuple[Any, int]]):
    """A part of a data set as torchvision's classes give it: PIL images and integer labels."""

    def __init__(self, parts: list[Any]) -> None:
        pixels = np.concatenate([part.load() for part in parts])
        self._images = [Image.fromarray(np.squeeze(p.transpose(1, 2, 0))) for p in pixels]
        self.targets: list[int] = np.concatenate([part.original_labels for part in parts]).tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return self._images[row], self.targets[row]


class PlainModel(MultiTaskModule):
    """A backbone below Avalanche's multi-head classifier."""

    def __init__(self, backbone: nn.Module, feature_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = MultiHeadClassifier(feature_size)

    def forward(self, images: Tensor, task_labels: Tensor) -> Tensor:
        """Logits of each image's own task: (B, C, H, W), (B,) -> (B, classes)."""
        logits: Tensor = self.classifier(self.backbone(images), task_labels)
        return logits


class PlainAvalanche:
    """One task-incremental run.

    Args:
        experiment: stream, backbone, strategy (naive, si or ewc), learning rate, epochs and batch size; fp32.
        seed: of the backbone and the class order.
        device: where it trains.

    Raises:
        UserError: the strategy is another one.
    """

    def __init__(self, experiment: Experiment, seed: int, device: torch.device) -> None:
        seeds = experiment.seeds_of(seed)
        stream = build_stream(experiment, seeds)
        backbone = build_network(experiment, seeds, stream).backbone
        self._stream = _benchmark(stream).train_stream
        self._strategy = _strategy(experiment, PlainModel(backbone, backbone.feature_size), device)

    def learn(self, experience: int) -> None:
        """Train on one experience."""
        self._strategy.train(self._stream[experience])


def _benchmark(stream: Any) -> Any:
    """As ``SplitCIFAR100`` and its like are made."""
    info = stream.info
    augmentation = [transforms.RandomCrop(info.image_size, padding=info.padding)] if info.padding else []
    augmentation += [transforms.RandomHorizontalFlip()] if info.flip else []
    common = [transforms.ToTensor(), transforms.Normalize(info.mean, info.std)]
    return nc_benchmark(
        train_dataset=PilImages([e.train for e in stream.experiences]),
        test_dataset=PilImages([e.test for e in stream.experiences]),
        n_experiences=len(stream),
        task_labels=True,
        fixed_class_order=list(stream.class_order),
        class_ids_from_zero_in_each_exp=True,
        train_transform=transforms.Compose(augmentation + common),
        eval_transform=transforms.Compose(common),
    )


def _strategy(experiment: Experiment, model: nn.Module, device: torch.device) -> Any:
    makers = {
        "naive": (Naive, {}),
        "si": (SynapticIntelligence, {"si_lambda": 1.0}),
        "ewc": (EWC, {"ewc_lambda": 1.0}),
    }
    if experiment.strategy.name not in makers:
        raise UserError(f"plain Avalanche is set up for {', '.join(makers)}, not {experiment.strategy.name}")
    maker, options = makers[experiment.strategy.name]
    return maker(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=experiment.optimizer.lr),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=experiment.batch_size,
        train_epochs=experiment.epochs,
        device=device,
        evaluator=EvaluationPlugin(accuracy_metrics(epoch=True), loss_metrics(epoch=True), loggers=[BaseLogger()]),
        **options,
    )


def main() -> None:
    """Serve one client on standard input and output."""
    told = json.loads(sys.stdin.readline())
    torch.set_num_threads(told["threads"])
    device = torch.device(told["device"])
    plain = PlainAvalanche(Experiment(**told["experiment"]), told["seed"], device)
    for line in sys.stdin:
        started = time.perf_counter()
        plain.learn(int(line))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
