"""Our Avalanche template: Avalanche's loop and call-backs, on data that lies on the device."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from avalanche.core import BasePlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor
from torch.optim import Optimizer

from acn_cl.seeding import Seeds
from acn_cl.spec import Experiment
from acn_cl.training.batches import DeviceData, TrainingBatches, Transform
from acn_cl.training.device import autocast
from acn_cl.training.loss import CutMix, cross_entropy
from acn_cl.training.network import Network
from acn_cl.training.optim import clip, make_optimizer, make_schedule, next_optimizer

MIXING = 1  # child of the augmentation stream that CutMix draws from, so that crops stay what they are without it


class Learner(SupervisedTemplate):
    """Trains one network over a stream, one experience a call of :meth:`train`.

    Every Avalanche plug-in runs in it. What differs from Avalanche's own template: batches come from
    :class:`TrainingBatches` (unless a plug-in puts a loader of its own in their place), forward passes run in the
    run's precision, the optimiser is reset or carried over as the spec says, and evaluation never adds a head.

    Args:
        experiment: loss, optimiser, schedule, epochs and batch size.
        network: already on ``device``.
        data: the training part of every experience that will be trained.
        transform: the stream's.
        task_label: experience -> what the learner is told of it, the stream's.
        seeds: the run's.
        device: where everything lies.
        precision: ``fp32`` or ``bf16``.
        plugins: the strategy, and whatever watches.
        evaluator: Avalanche's loggers.
    """

    def __init__(
        self,
        *,
        experiment: Experiment,
        network: Network,
        data: Sequence[DeviceData],
        transform: Transform,
        task_label: Callable[[int], int],
        seeds: Seeds,
        device: torch.device,
        precision: str,
        plugins: Sequence[BasePlugin[Any]],
        evaluator: EvaluationPlugin,
    ) -> None:
        self._experiment, self._data, self._transform, self._seeds = experiment, data, transform, seeds
        self._task_label, self._precision = task_label, precision
        self._cutmix = CutMix(experiment.loss.cutmix) if experiment.loss.cutmix else None
        super().__init__(
            model=network,
            optimizer=make_optimizer(experiment.optimizer, list(network.parameters())),
            criterion=self._mean_loss,
            train_mb_size=experiment.batch_size,
            train_epochs=experiment.epochs,
            eval_mb_size=experiment.batch_size,
            device=device,
            plugins=plugins,
            evaluator=evaluator,
        )

    def _mean_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels, self._experiment.loss.label_smoothing)

    # What Avalanche calls before an experience.

    def make_train_dataloader(self, **_: Any) -> None:
        index = self.experience.current_experience
        self.dataloader = TrainingBatches(
            self._data[index], self._transform, self.train_mb_size, self._seeds, index, self._task_label(index)
        )

    def check_model_and_optimizer(self, **_: Any) -> None:
        self.model = self.model_adaptation()
        parameters = list(self.model.parameters())
        current = None if self.experience.current_experience == 0 else self.optimizer
        self.optimizer: Optimizer = next_optimizer(self._experiment.optimizer, current, parameters)
        self._schedule = make_schedule(
            self._experiment.schedule, self.optimizer, self.train_epochs, len(self.dataloader)
        )

    # What it calls at a step.

    def _before_forward(self, **kwargs: Any) -> None:
        if self._cutmix is not None:
            position = (self.clock.train_exp_counter, self.clock.train_exp_epochs, self.clock.train_epoch_iterations)
            draws = torch.Generator(self.device).manual_seed(self._seeds.integer("augmentation", *position, MIXING))
            self.mbatch[0], self._partner, self._share = self._cutmix(self.mb_x, draws)
        super()._before_forward(**kwargs)

    def forward(self) -> Tensor:
        task = self.dataloader.task if isinstance(self.dataloader, TrainingBatches) else self.mb_task_id
        with autocast(self.device, self._precision):
            logits: Tensor = self.model(self.mb_x, task)
        return logits

    def criterion(self) -> Tensor:
        loss: Tensor = self._criterion(self.mb_output, self.mb_y)
        if self._cutmix is None or not self.is_training or self._share == 1.0:
            return loss
        other = self._criterion(self.mb_output, self.mb_y[self._partner])
        mixed: Tensor = self._share * loss + (1 - self._share) * other
        return mixed

    def optimizer_step(self) -> None:
        if self._experiment.optimizer.clip_norm is not None:
            clip(self.optimizer, self._experiment.optimizer.clip_norm)
        self.optimizer.step()
        if self._schedule is not None:
            self._schedule.step()

    # What strategies may ask for.

    def plain_losses(self) -> Iterator[Tensor]:
        """The mean loss of each mini-batch of the current experience's training images, without augmentation."""
        index = self.experience.current_experience
        task = self._task_label(index)
        for images, labels in self._data[index].plain_batches(self._transform, self.train_mb_size):
            with autocast(self.device, self._precision):
                logits = self.model(images, task)
            yield self._criterion(logits, labels)
