"""The lean step: one optimiser step of every run of a stack, without call-backs and without waiting for the device.

A step is, in this order: gather and augment, losses and gradients, what is watched, the strategy's pull, clipping,
the optimiser, the strategy's account. It computes what :class:`acn_cl.training.learner.Learner` does by Avalanche's
call-backs; a stack of one is the fast way to train a single run.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from acn_cl.runs.checkpoint import Position
from acn_cl.seeding import Seeds
from acn_cl.spec import Experiment
from acn_cl.training.compiled import Named
from acn_cl.training.learner import MIXING
from acn_cl.training.loss import CutMix
from acn_cl.training.optim import clip_runs, make_optimizer, make_schedule, next_optimizer
from acn_cl.training.parts import pieces
from acn_cl.training.per_run import Loss, PerRun
from acn_cl.training.stack_data import StackedEpoch, StackedPart
from acn_cl.training.stack_gradients import StackGradients
from acn_cl.training.stack_network import StackedNetwork
from acn_cl.training.stack_strategy import StackStrategy
from acn_cl.training.stack_watch import StackWatch

PROBE = 2  # images that show which parameters a loss depends on


@dataclass
class Events:
    """Who is told what while an experience is learned."""

    epoch_over: Callable[[Position, list[list[float]]], None]
    """The position that is next; for each run the mean loss and the mean gradient norm at each layer."""
    step_over: Callable[[Position, int], None]
    """The position that is next, and how many steps of the experience are over. What it raises ends the training."""


class StackLearner:
    """Trains the networks of R runs over a stream, one experience a call of :meth:`learn`.

    Args:
        experiment: loss, optimiser, schedule, epochs and batch size, the same for all runs.
        network: the stacked parameters.
        strategy: the stacked strategy.
        per_run: how losses and gradients are computed.
        data: the training part of every experience.
        transform: the stream's.
        task_label: experience -> the experience whose head answers.
        seeds: each run's.
        watch: what is measured.
    """

    def __init__(
        self,
        *,
        experiment: Experiment,
        network: StackedNetwork,
        strategy: StackStrategy,
        per_run: PerRun,
        data: Sequence[StackedPart],
        transform: Any,
        task_label: Callable[[int], int],
        seeds: Sequence[Seeds],
        watch: StackWatch,
    ) -> None:
        self._experiment, self._network, self._strategy, self._per_run = experiment, network, strategy, per_run
        self._data, self._transform, self._task_label, self._seeds = data, transform, task_label, seeds
        self._watch = watch
        self._cutmix = CutMix(experiment.loss.cutmix) if experiment.loss.cutmix else None
        self._index = -1  # what the network is called with; the step is prepared anew when it changes
        self.optimizer: Optimizer | None = None
        self.schedule: LRScheduler | None = None

    def steps_per_epoch(self, experience: int) -> int:
        """Batches, the last and smaller one included."""
        return -(-len(self._data[experience]) // self._experiment.batch_size)

    @property
    def epochs(self) -> int:
        """Of every experience."""
        return self._experiment.epochs

    def load_optimizer(self, state: dict[int, dict[str, Tensor]], plain: Mapping[str, Any]) -> None:
        """Put the optimiser, and the schedule if an experience has begun, into a saved state.

        Args:
            state: moments (R, ...) by the parameter's place among the network's.
            plain: ``rates`` and ``schedule`` of a checkpoint.
        """
        if self.optimizer is None:
            self.optimizer = make_optimizer(self._experiment.optimizer, list(self._network.parameters.values()))
        whole = self.optimizer.state_dict()
        groups = [group | rates for group, rates in zip(whole["param_groups"], plain["rates"], strict=True)]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        if self.schedule is not None and plain["schedule"] is not None:
            self.schedule.load_state_dict(plain["schedule"])

    def begin(self, experience: int) -> None:
        """Everything that happens before the first step of an experience."""
        network = self._network
        network.grow(experience)
        parameters = list(network.parameters.values())
        self.optimizer = next_optimizer(self._experiment.optimizer, self.optimizer, parameters)
        self.schedule = make_schedule(
            self._experiment.schedule, self.optimizer, self._experiment.epochs, self.steps_per_epoch(experience)
        )
        self._task = self._task_label(experience)
        images, labels = next(self._data[experience].plain_batches(self._transform, PROBE))
        self._moved = network.moved_names(images[0], labels[0], self._task)
        aliases, index = network.answering(self._task)
        self._moving = {alias: name for alias, name in aliases.items() if name in self._moved}
        self._standing = {alias: name for alias, name in aliases.items() if name not in self._moved}
        if index != self._index:
            self._index = index
            self._compute = self._per_run.prepared(self._loss(), self._calls())
        self._strategy.begin(experience, network.parameters)
        self._watch.begin_experience(self._moved)

    def learn(self, experience: int, events: Events, start: tuple[int, int] = (0, 0)) -> None:
        """Train on one experience that has begun, from epoch and batch ``start``."""
        for epoch in range(start[0], self._experiment.epochs):
            self._epoch(experience, epoch, start[1] if epoch == start[0] else 0, events)
        self._strategy.end(self._gradients(experience))

    def _epoch(self, experience: int, epoch: int, first: int, events: Events) -> None:
        size = self._experiment.batch_size
        batches = StackedEpoch(self._data[experience], self._transform, size, self._seeds, (experience, epoch))
        if first == 0:
            self._watch.begin_epoch()
        for batch, images, labels in batches.batches(first):
            self._step((experience, epoch, batch), images, labels)
            events.step_over((experience, epoch, batch + 1), epoch * len(batches) + batch + 1)
        events.epoch_over((experience, epoch + 1, 0), self._watch.means())

    def _step(self, position: Position, images: Tensor, labels: Tensor) -> None:
        """One step of every run: images (R, B, C, H, W), labels (R, B)."""
        losses, found = self._losses(position, images, labels)
        self._watch.add(losses, found)
        with torch.no_grad():
            by_name = dict(zip(self._moved, found, strict=True))
            gradients = self._strategy.pull([by_name.get(name) for name in self._network.parameters])
            if self._experiment.optimizer.clip_norm is not None:
                clip_runs([g for g in gradients if g is not None], self._experiment.optimizer.clip_norm)
            self._update(gradients)
            self._strategy.after_step(gradients)

    def _losses(self, position: Position, images: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        parameters = self._network.parameters
        moved = {alias: parameters[name] for alias, name in self._moving.items()}
        fixed = {alias: parameters[name] for alias, name in self._standing.items()}
        inputs: tuple[Tensor, ...] = (images, labels)
        if self._cutmix is not None:
            inputs = self._mix(self._cutmix, position, images, labels)
        parts = pieces(labels.shape[1], self._experiment.accumulate)
        return self._compute(moved, fixed, *inputs) if len(parts) == 1 else self._summed(moved, fixed, inputs, parts)

    def _summed(
        self, moved: Named, fixed: Named, inputs: Sequence[Tensor], parts: Sequence[slice]
    ) -> tuple[Tensor, list[Tensor]]:
        """The same of a batch in parts, one of which is in memory at a time."""
        count = parts[-1].stop
        total: tuple[Tensor, ...] | list[Tensor] = ()
        for part in parts:
            own = [tensor[:, part] if tensor.dim() > 1 else tensor for tensor in inputs]  # CutMix's share is a run's
            losses, found = self._compute(moved, fixed, *own)
            weighed = torch._foreach_mul([losses, *found], (part.stop - part.start) / count)
            total = torch._foreach_add(total, weighed) if total else weighed
        return total[0], list(total[1:])

    def _calls(self) -> Counter[int]:
        """Images of a batch -> how many such batches the loss at hand will be computed of, in the whole stream."""
        calls: Counter[int] = Counter()
        size, parts, epochs = self._experiment.batch_size, self._experiment.accumulate, self._experiment.epochs
        for experience, part in enumerate(self._data):
            if self._network.answering(self._task_label(experience))[1] != self._index:
                continue
            whole, rest = divmod(len(part), size)
            for batch in [size] * whole + [rest] * (rest > 0):
                for piece in pieces(batch, parts):
                    calls[piece.stop - piece.start] += epochs
        return calls

    def _loss(self) -> Loss:
        """One run's loss in the experience at hand."""
        network, index = self._network, self._index

        def plain(moved: Named, fixed: Named, images: Tensor, labels: Tensor) -> Tensor:
            return network.loss({**fixed, **moved}, images, labels, index)

        def mixed(moved: Named, fixed: Named, images: Tensor, labels: Tensor, others: Tensor, share: Tensor) -> Tensor:
            return network.mixed_loss({**fixed, **moved}, images, labels, others, share, index)

        return plain if self._cutmix is None else mixed

    def _mix(self, cutmix: CutMix, position: Position, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """CutMix by each run's own draws: images, labels, the labels of the other images, and the first's share."""
        mixed, others, shares = [], [], []
        for run, seeds in enumerate(self._seeds):
            draws = torch.Generator(images.device).manual_seed(seeds.integer("augmentation", *position, MIXING))
            own, partner, share = cutmix(images[run], draws)
            mixed.append(own)
            others.append(labels[run][partner])
            shares.append(share)
        return torch.stack(mixed), labels, torch.stack(others), torch.tensor(shares, device=images.device)

    def _update(self, gradients: Sequence[Tensor | None]) -> None:
        assert self.optimizer is not None
        for parameter, gradient in zip(self._network.parameters.values(), gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        for parameter in self._network.parameters.values():
            parameter.grad = None  # nobody else is to read or keep them

    def _gradients(self, experience: int) -> StackGradients:
        return StackGradients(
            self._network, self._per_run, self._data[experience], self._transform, self._experiment.batch_size,
            self._seeds, experience, self._task, self._moved,
        )  # fmt: skip
