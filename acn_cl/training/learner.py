"""Our Avalanche template: Avalanche's loop and call-backs, on batches that are made on the device."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from avalanche.core import BasePlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from acn_cl.errors import SpecError
from acn_cl.seeding import Seeds
from acn_cl.spec import Experiment
from acn_cl.training.batches import DeviceData, TrainingBatches, Transform
from acn_cl.training.device import autocast
from acn_cl.training.images import ahead, slices
from acn_cl.training.loss import CutMix, cross_entropy
from acn_cl.training.network import Network
from acn_cl.training.optim import clip, make_optimizer, make_schedule, next_optimizer
from acn_cl.training.parts import pieces
from acn_cl.training.world import World, without_averaging

if TYPE_CHECKING:
    from acn_cl.training.resume import Resume

# Children of the augmentation stream at a position, so that crops stay what they are without these.
MIXING, ONCE_MORE = 1, 2  # CutMix; a pass over the training images besides training


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
        world: the processes that share each batch.
    """

    loss: Tensor

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
        world: World | None = None,
    ) -> None:
        self._experiment, self._precision, self.task_label = experiment, precision, task_label
        self.data, self.transform, self.seeds, self.world = data, transform, seeds, world or World()
        self._schedule: LRScheduler | None = None
        self._averaging: nn.Module = network
        self._accumulated: Tensor | None = None  # the loss of a batch that was computed in parts
        self.resume: Resume | None = None
        """Set to go on from the middle of the next experience."""
        self.images_trained = 0
        """Images that the last experience's training went over, each counted once an epoch. Those that a strategy
        draws from a memory besides are left out; of a loader that a plug-in put in place of ours, only the
        experience's own images are known."""
        self._cutmix = CutMix(experiment.loss.cutmix) if experiment.loss.cutmix else None
        super().__init__(
            model=network,
            optimizer=make_optimizer(experiment.optimizer, list(network.parameters())),
            criterion=self.mean_loss,
            train_mb_size=experiment.batch_size,
            train_epochs=experiment.epochs,
            eval_mb_size=experiment.batch_size,
            device=device,
            plugins=plugins,
            evaluator=evaluator,
        )

    # What Avalanche calls before an experience.

    def _check_distributed_training_compatibility(self) -> bool:
        """Avalanche's warning of plug-ins that do not call themselves distributed; see ``parts.refusal`` instead."""
        return True

    def train_dataset_adaptation(self, **_: Any) -> None:
        super().train_dataset_adaptation()
        index = self.experience.current_experience
        self.train_on(self.data[index], self.task_label(index))

    def make_train_dataloader(self, **_: Any) -> None:
        data, tasks = self._training
        index = self.experience.current_experience
        self.dataloader = TrainingBatches(
            data, self.transform, self.train_mb_size, self.seeds, index, tasks, self.world
        )

    def check_model_and_optimizer(self, **_: Any) -> None:
        self.model = self.model_adaptation()
        self._averaging = self.world.averaging(self.model)
        parameters = list(self.model.parameters())
        current = None if self.experience.current_experience == 0 else self.optimizer
        self.optimizer: Optimizer = next_optimizer(self._experiment.optimizer, current, parameters)
        self._schedule = make_schedule(
            self._experiment.schedule, self.optimizer, self.train_epochs, len(self.dataloader)
        )

    def _train_exp(self, experience: Any, eval_streams: Any = None, **kwargs: Any) -> None:
        """Avalanche's loop over epochs, from the one at which a checkpoint was taken."""
        if self.resume is not None:
            self.resume.begin_experience(self)
        for _ in range(self.clock.train_exp_epochs, self.train_epochs):
            self._before_training_epoch(**kwargs)
            if self._stop_training:  # a plug-in asked for it
                self._stop_training: bool = False
                break
            self.training_epoch(**kwargs)
            self._after_training_epoch(**kwargs)
        ours = isinstance(self.dataloader, TrainingBatches)
        data = self.dataloader.data if ours else self.data[self.experience.current_experience]
        self.images_trained = len(data) * self.clock.train_exp_epochs

    def _before_training_epoch(self, **kwargs: Any) -> None:
        super()._before_training_epoch(**kwargs)
        if self.resume is not None:
            self.resume.begin_epoch(self)
            self.resume = None

    # What it calls at a step.

    def _before_forward(self, **kwargs: Any) -> None:
        if self._cutmix is not None:
            seed = self.seeds.integer("augmentation", *self.position, MIXING)
            draws = torch.Generator(self.device).manual_seed(seed)
            self.mbatch[0], self._partner, self._share = self._cutmix(self.mb_x, draws)
        super()._before_forward(**kwargs)

    def forward(self) -> Tensor:
        parts = pieces(len(self.mb_y), self._experiment.accumulate)
        if len(parts) == 1:
            self._accumulated = None
            return self._answers(slice(None))
        return self._accumulate(parts)

    def criterion(self) -> Tensor:
        return self.batch_loss(self.mb_output, self.mb_y) if self._accumulated is None else self._accumulated

    def backward(self) -> None:
        if self._accumulated is None:
            self._backward(self.loss)
        if self.world.shared:  # from here on the loss is the whole batch's, as the gradients are
            self.loss = self.world.sum(self.loss.detach() * self.dataloader.weight)

    def _accumulate(self, parts: Sequence[slice]) -> Tensor:
        """Forward and backward, part after part; the answers to the whole batch, without a graph."""
        answers, losses = [], []
        for part in parts:
            with without_averaging(self._averaging, part is not parts[-1]):
                logits = self._answers(part)
                others = self.mb_y[self._partner][part] if self._is_mixed() else None
                loss = self._loss(logits, self.mb_y[part], others) * ((part.stop - part.start) / len(self.mb_y))
                self._backward(loss)
            answers.append(logits.detach())
            losses.append(loss.detach())
        self._accumulated = torch.stack(losses).sum()
        width = max(logits.shape[1] for logits in answers)  # heads differ in size
        least = torch.finfo(answers[0].dtype).min
        return torch.cat([F.pad(logits, (0, width - logits.shape[1]), value=least) for logits in answers])

    def _answers(self, part: slice) -> Tensor:
        """The logits of some of the batch's images, as training has them."""
        one_task = isinstance(self.dataloader, TrainingBatches) and isinstance(self.dataloader.task, int)
        tasks = self.dataloader.task if one_task else self.mb_task_id[part]
        network = self._averaging if self.world.shared else self.model
        with self.autocast():
            logits: Tensor = network(self.mb_x[part], tasks)
        return logits

    def _backward(self, loss: Tensor) -> None:
        if self.world.shared:  # gradients come out as the mean over processes, and are to be that over images
            loss = loss * (self.dataloader.weight * self.world.size)
        torch.autograd.backward(loss, retain_graph=self.retain_graph)

    def optimizer_step(self) -> None:
        if self._experiment.optimizer.clip_norm is not None:
            clip(self.optimizer, self._experiment.optimizer.clip_norm)
        self.optimizer.step()
        if self._schedule is not None:
            self._schedule.step()

    # What a checkpoint holds of it besides the network.

    def schedule_state(self) -> dict[str, Any] | None:
        """Where the learning rate's schedule stands, in plain values."""
        return None if self._schedule is None else self._schedule.state_dict()

    def restore_optimizer(
        self, state: dict[int, dict[str, Tensor]], rates: list[dict[str, float]], schedule: dict[str, Any] | None
    ) -> None:
        """Put the optimiser, and the schedule if an experience has begun, into a saved state.

        Args:
            state: moments by the parameter's place among the network's.
            rates: the learning rates of its groups.
            schedule: as :meth:`schedule_state` gave it.
        """
        parameters = list(self.model.parameters())
        if len(parameters) != sum(len(group["params"]) for group in self.optimizer.param_groups):
            self.optimizer = make_optimizer(self._experiment.optimizer, parameters)
        whole = self.optimizer.state_dict()
        groups = [group | rate for group, rate in zip(whole["param_groups"], rates, strict=True)]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        if self._schedule is not None and schedule is not None:
            self._schedule.load_state_dict(schedule)

    # What strategies may ask for. Public besides: data and task_label (by experience), transform, seeds.

    @property
    def position(self) -> tuple[int, int, int]:
        """Experience, epoch and batch of the current step, each from 0: what random numbers are drawn by."""
        return self.clock.train_exp_counter, self.clock.train_exp_epochs, self.clock.train_epoch_iterations

    def train_on(self, data: DeviceData, tasks: int | Tensor) -> None:
        """Let the experience that is about to begin be trained on other images than its own.

        To be called from ``after_train_dataset_adaptation``.

        Args:
            data: N images.
            tasks: the task label of all of them, or (N,) one each.

        Raises:
            SpecError: CutMix would give an image of one head a label of another.
        """
        if isinstance(tasks, Tensor) and self.mixes and self.model.heads.scenario == "task-incremental":
            raise SpecError(
                ("loss", "cutmix"),
                "this strategy trains images of several heads together, and an image of two of them is none's; use 0",
            )
        self._training = data, tasks

    def autocast(self) -> torch.autocast:
        """The context of a forward pass in the run's precision."""
        return autocast(self.device, self._precision)

    def logits(self, images: Tensor, tasks: int | Tensor) -> Tensor:
        """The network's answer in the run's precision: images (B, C, H, W), tasks as in ``Network`` -> (B, classes)."""
        with self.autocast():
            logits: Tensor = self.model(images, tasks)
        return logits

    def mean_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy in nats, label smoothing as the spec says: (B, classes), (B,) -> ()."""
        return cross_entropy(logits, labels, self._experiment.loss.label_smoothing)

    def batch_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """:meth:`mean_loss` of the current batch, which CutMix may have mixed: then of both images of each."""
        return self._loss(logits, labels, labels[self._partner] if self._is_mixed() else None)

    def _is_mixed(self) -> bool:
        return self.mixes and self.is_training and self._share != 1.0

    def _loss(self, logits: Tensor, labels: Tensor, others: Tensor | None) -> Tensor:
        loss = self.mean_loss(logits, labels)
        if others is None:
            return loss
        return self._share * loss + (1 - self._share) * self.mean_loss(logits, others)

    @property
    def mixes(self) -> bool:
        """Whether the spec asks for CutMix: an image of the batch may bear two labels."""
        return self._cutmix is not None

    def plain_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The current experience's own training images in order, not augmented, and their labels."""
        yield from self.data[self.experience.current_experience].plain_batches(self.transform, self.train_mb_size)

    def augmented_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The same, augmented: as training sees them, in another draw."""
        index = self.experience.current_experience
        data, draws = self.data[index], self._once_more(index)
        chunks = slices(len(data), self.train_mb_size)
        for chunk, images in zip(chunks, ahead(data.images, chunks), strict=True):
            yield self.transform.train(images, draws), data.labels[chunk]

    def shares(self, augmented: bool) -> Iterator[tuple[Tensor, Tensor, float]]:
        """This process's share of each of these batches, and its weight in the mean over the batch."""
        index = self.experience.current_experience
        data, draws = self.data[index], self._once_more(index)
        sizes = [len(labels) for labels in torch.split(data.labels, self.train_mb_size)]
        shares = [self.world.share(size) for size in sizes]
        starts = range(0, len(data), self.train_mb_size)
        chunks = [slice(s + share.start, s + share.stop) for s, (share, _) in zip(starts, shares, strict=True)]
        found = ahead(data.images, chunks)
        for images, chunk, (share, weight), size in zip(found, chunks, shares, sizes, strict=True):
            ready = self.transform.train(images, draws, share, size) if augmented else self.transform.evaluate(images)
            yield ready, data.labels[chunk], weight

    def _once_more(self, index: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(self.seeds.integer("augmentation", index, 0, 0, ONCE_MORE))
