"""Gradients over an experience's training images, of every run: what regularisers measure importance with."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn import functional as F

from acn_cl.seeding import Seeds
from acn_cl.training.compiled import Named
from acn_cl.training.learner import ONCE_MORE
from acn_cl.training.per_run import PerRun
from acn_cl.training.stack_data import StackedPart, by_run
from acn_cl.training.stack_network import StackedNetwork

AT_ONCE = 16
"""Images a run whose gradients are in memory at once."""
LABELS = 3  # child of the data-order stream that labels are drawn from


class StackGradients:
    """The gradient source of a stack's current experience.

    The numbers are those of each run alone, as ``acn_cl.strategies.gradients`` computes them. Each gradient is
    (n, R, ...), n images or batches, R runs.
    """

    def __init__(
        self, network: StackedNetwork, per_run: PerRun, part: StackedPart, transform: Any, size: int,
        seeds: Sequence[Seeds], experience: int, task: int, moved: Sequence[str],
    ) -> None:  # fmt: skip
        self._network, self._per_run, self._part, self._transform = network, per_run, part, transform
        self._size, self._seeds, self._experience, self._names = size, seeds, experience, moved
        aliases, self._index = network.answering(task)
        self._answering = {alias: network.parameters[name] for alias, name in aliases.items()}
        self._moved = {alias: self._answering[alias] for alias, name in aliases.items() if name in moved}
        self._fixed = {alias: p for alias, p in self._answering.items() if alias not in self._moved}

    def __call__(
        self,
        of: Literal["loss", "sampled-loss", "output"] = "loss",
        *,
        each: Literal["batch", "image"] = "batch",
        augmented: bool = False,
    ) -> Iterator[list[Tensor]]:
        """Go once over the images; arguments as for ``GradientSource``."""
        device = self._part.labels.device
        draws = [
            torch.Generator(device).manual_seed(s.integer("data_order", self._experience, 0, 0, LABELS))
            for s in self._seeds
        ]
        for images, labels in self._augmented() if augmented else self._part.plain_batches(self._transform, self._size):
            wanted = self._sampled(images, draws) if of == "sampled-loss" else labels
            if each == "batch":
                yield self._of_batch(of, images, wanted)
            else:
                chunks = zip(torch.split(images, AT_ONCE, 1), torch.split(wanted, AT_ONCE, 1), strict=True)
                yield from (self._of_images(of, *chunk) for chunk in chunks)

    def _of_batch(self, of: str, images: Tensor, labels: Tensor) -> list[Tensor]:
        def value(moved: Named, fixed: Named, images: Tensor, labels: Tensor) -> Tensor:
            logits = self._network.logits({**fixed, **moved}, images, self._index)
            return _squared_norm(logits).mean() if of == "output" else self._network.mean_loss(logits, labels)

        _, found = self._per_run.gradients(value, self._moved, self._fixed, images, labels)
        return self._everywhere([g[None] for g in found], 1)

    def _of_images(self, of: str, images: Tensor, labels: Tensor) -> list[Tensor]:
        def value(moved: Named, fixed: Named, image: Tensor, label: Tensor) -> Tensor:
            logits = self._network.logits({**fixed, **moved}, image[None], self._index)
            return _squared_norm(logits)[0] if of == "output" else F.cross_entropy(_precise(logits), label[None])

        over_images = vmap(grad(value), in_dims=(None, None, 0, 0))
        found = vmap(over_images)(self._moved, self._fixed, images, labels)
        return self._everywhere([found[name].transpose(0, 1) for name in self._moved], images.shape[1])

    def _everywhere(self, found: list[Tensor], count: int) -> list[Tensor]:
        """One gradient for each of the stack's parameters; zeros where nothing depends on it."""
        by_name = dict(zip(self._names, found, strict=True))
        return [by_name.get(n, p.new_zeros(1).expand(count, *p.shape)) for n, p in self._network.parameters.items()]

    @torch.no_grad()
    def _sampled(self, images: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
        """A label for each image, drawn from its own run's prediction by that run's generator."""

        def answer(parameters: Named, images: Tensor) -> Tensor:
            return _precise(self._network.logits(parameters, images, self._index)).softmax(1)

        chances = self._per_run.values(answer, self._answering, images)
        return torch.stack([torch.multinomial(c, 1, generator=g)[:, 0] for c, g in zip(chances, draws, strict=True)])

    def _augmented(self) -> Iterator[tuple[Tensor, Tensor]]:
        device = self._part.labels.device
        draws = [
            torch.Generator(device).manual_seed(s.integer("augmentation", self._experience, 0, 0, ONCE_MORE))
            for s in self._seeds
        ]
        found = self._part.gathered(self._part.rows, self._size)
        for images, labels in zip(found, torch.split(self._part.labels, self._size, 1), strict=True):
            runs = by_run(images, labels)
            own = [self._transform.train(run, g) for run, g in zip(runs, draws, strict=True)]
            yield torch.stack(own), labels


def _squared_norm(logits: Tensor) -> Tensor:
    return (_precise(logits) ** 2).sum(1)


def _precise(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
