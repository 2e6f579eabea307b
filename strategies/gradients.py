"""Gradients over an experience's training images, for what measures importance after training."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from avalanche.models import avalanche_forward
from avalanche.models.utils import is_multi_task_module
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader

from acn_cl.errors import UserError
from acn_cl.strategies.plugin import precise
from acn_cl.training.learner import Learner

AT_ONCE = 16
"""Images whose gradients are in memory at once; each is as large as the network."""
LABELS = 3  # child of the data-order stream that labels are drawn from

Of = Literal["loss", "sampled-loss", "output"]


class ExperienceGradients:
    """The :class:`acn_cl.strategies.regulariser.GradientSource` of the experience that a strategy has just trained.

    ``parameter.grad``, the global random state and, once an iteration is over, the model's mode are left as they were.

    Args:
        strategy: any Avalanche strategy.
        parameters: what to differentiate by, by their names in its model.
    """

    def __init__(self, strategy: Any, parameters: Mapping[str, Tensor]) -> None:
        self.strategy, self.parameters = strategy, parameters
        self.model: nn.Module = strategy.model
        ours = isinstance(strategy, Learner)
        self._autocast: Callable[[], AbstractContextManager[Any]] = strategy.autocast if ours else nullcontext
        self._batches = _ours if ours else _avalanches

    def __call__(
        self, of: Of = "loss", *, each: Literal["batch", "image"] = "batch", augmented: bool = False
    ) -> Iterator[list[Tensor]]:
        """As :class:`~acn_cl.strategies.regulariser.GradientSource`.

        The loss of a mini-batch is the strategy's own, smoothed or weighed as it may be, as in Avalanche; that of an
        image is -log p(label), which is what the Fisher information is made of.

        Raises:
            UserError: one gradient an image is asked for where images of several tasks are mixed.
        """
        draws = torch.Generator(self.strategy.device).manual_seed(self._seed())
        with _evaluating(self.model):
            if each == "batch" and of != "sampled-loss" and isinstance(self.strategy, Learner):
                yield from self._together(of, self.strategy, augmented)
                return
            for images, labels, tasks in self._batches(self.strategy, augmented):
                if of == "sampled-loss":
                    labels = self._sampled(images, tasks, draws)
                if each == "batch":
                    yield self._of_batch(of, images, labels, tasks)
                else:
                    chunks = zip(torch.split(images, AT_ONCE), torch.split(labels, AT_ONCE), strict=True)
                    yield from (self._of_images(of, *chunk, _one(tasks)) for chunk in chunks)

    def _together(self, of: Of, learner: Learner, augmented: bool) -> Iterator[list[Tensor]]:
        """Of each batch, which the processes share."""
        task = learner.task_label(learner.experience.current_experience)
        for images, labels, weight in learner.shares(augmented):
            found = self._of_batch(of, images, labels, task)
            yield learner.world.mean(found, weight) if learner.world.shared else found

    def _of_batch(self, of: Of, images: Tensor, labels: Tensor, tasks: int | Tensor) -> list[Tensor]:
        """Of the mean over the batch, (1, *shape) each."""
        parameters = list(self.parameters.values())
        with torch.enable_grad():  # whoever iterates may have switched it off
            logits = self._logits(images, tasks)
            value = _squared_norm(logits).mean() if of == "output" else self.strategy._criterion(logits, labels)
            found = torch.autograd.grad(value, parameters, allow_unused=True)
        return [torch.zeros_like(p)[None] if g is None else g[None] for p, g in zip(parameters, found, strict=True)]

    def _of_images(self, of: Of, images: Tensor, labels: Tensor, task: int) -> list[Tensor]:
        """Of each image alone, (images, *shape) each."""
        known = (task,) if is_multi_task_module(self.model) else ()

        def value(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
            with self._autocast():
                logits: Tensor = functional_call(self.model, parameters, (image[None], *known))
            return _squared_norm(logits)[0] if of == "output" else F.cross_entropy(precise(logits), label[None])

        detached = {name: p.detach() for name, p in self.parameters.items()}
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention cannot be batched
            found = vmap(grad(value), in_dims=(None, 0, 0))(detached, images, labels)
        return [found[name] for name in self.parameters]

    @torch.no_grad()
    def _sampled(self, images: Tensor, tasks: int | Tensor, draws: torch.Generator) -> Tensor:
        """A label for each image, drawn from the network's own prediction."""
        return torch.multinomial(precise(self._logits(images, tasks)).softmax(1), 1, generator=draws)[:, 0]

    def _logits(self, images: Tensor, tasks: int | Tensor) -> Tensor:
        with self._autocast():
            logits: Tensor = avalanche_forward(self.model, images, tasks)
        return logits

    def _seed(self) -> int:
        index = int(self.strategy.experience.current_experience)
        if isinstance(self.strategy, Learner):
            return self.strategy.seeds.integer("data_order", index, 0, 0, LABELS)
        return index


def _squared_norm(logits: Tensor) -> Tensor:
    """(B, classes) -> (B,)."""
    return (precise(logits) ** 2).sum(1)


def _ours(learner: Learner, augmented: bool) -> Iterator[tuple[Tensor, Tensor, int]]:
    task = learner.task_label(learner.experience.current_experience)
    for images, labels in learner.augmented_batches() if augmented else learner.plain_batches():
        yield images, labels, task


def _avalanches(strategy: Any, augmented: bool) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    dataset = strategy.experience.dataset
    dataset = dataset.train() if augmented else dataset.eval()
    loader = DataLoader(
        dataset,
        strategy.train_mb_size,
        collate_fn=getattr(dataset, "collate_fn", None),
        generator=torch.Generator(),  # else it would draw a seed from the global one
    )
    for batch in loader:
        images, labels, tasks = (part.to(strategy.device) for part in (batch[0], batch[1], batch[-1]))
        yield images, labels, tasks


def _one(tasks: int | Tensor) -> int:
    if isinstance(tasks, int):
        return tasks
    if (tasks != tasks[0]).any():
        raise UserError("one gradient an image needs experiences of one task each")
    return int(tasks[0])


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
