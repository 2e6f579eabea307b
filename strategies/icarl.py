"""iCaRL. S.-A. Rebuffi et al., "iCaRL: Incremental classifier and representation learning", 2017, arXiv 1611.07725.

Symbols: φ(x) the features, of length 1; μ_c the mean of φ over the exemplars of class c, of length 1; g(x) the
sigmoids of the logits.
"""

import copy
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from acn_cl.errors import SpecError
from acn_cl.strategies.memory import MemoryPlugin
from acn_cl.strategies.plugin import State, precise
from acn_cl.training.batches import DeviceData
from acn_cl.training.heads import MASKED
from acn_cl.training.images import Images, ahead, joined, slices
from acn_cl.training.learner import Learner
from acn_cl.training.network import Network

AT_ONCE = 500  # images; without gradients there is memory for more than a training batch


class ICaRL(MemoryPlugin):
    """Exemplars by herding, training with sigmoids and distillation, and classification by the nearest mean.

    Training (algorithm 3), on the experience's images and all exemplars: binary cross-entropy of g(x) with the label
    for new classes, and with what g(x) was before the experience for old ones; the mean over classes and images.

    Exemplars (algorithms 4, 5): of each class, one by one, the image that brings the mean of φ over those chosen
    nearest to the mean over all; of a full memory the last chosen go first.

    Classification (algorithm 1): argmin_c ‖φ(x) - μ_c‖ = argmax_c φ(x)·μ_c, that is, a linear head of weights μ_c. It
    answers instead of the network's own head between experiences; an evaluation within an experience, while there are
    no means of the new classes yet, gets the network's own.

    Differs: μ_c without mirrored copies of the exemplars. Where accuracy is asked for by depth, φ is the features of
    that depth, and μ_c those of the whole network. In a task-incremental stream each image knows its own head alone.
    Moves: the backbone and every head seen so far.
    """

    inert = None
    keeps_weights = 1

    def __init__(self, *, memory: int = 2000) -> None:
        super().__init__(memory=memory, balance="class", batch=None)
        self.weights: dict[str, Tensor] = {}  # of the network before the experience
        self._hook: RemovableHandle | None = None

    # Training.

    def after_train_dataset_adaptation(self, strategy: Learner, **_: Any) -> None:
        if strategy.mixes:
            raise SpecError(("loss", "cutmix"), "icarl's targets are of one image each; use 0")
        if strategy.model.heads.scenario == "domain-incremental":
            raise SpecError(("strategy", "name"), "icarl is for experiences with classes of their own")
        self.begins(strategy)
        if not len(self.memory):
            return
        index = strategy.experience.current_experience
        new, old = strategy.data[index], self.memory
        tasks = torch.full_like(new.labels, strategy.task_label(index))
        together = DeviceData(joined([new.images, old["images"]]), torch.cat([new.labels, old["labels"]]))
        strategy.train_on(together, torch.cat([tasks, old["tasks"]]))

    def images_an_epoch(self, sizes: Sequence[int]) -> list[int]:
        before = accumulate(sizes, initial=0)
        return [own + min(seen, self.memory.size) for own, seen in zip(sizes, before, strict=False)]

    def before_training_exp(self, strategy: Learner, **_: Any) -> None:
        if self._hook is not None:
            self._hook.remove()
        if not self.weights:
            return
        network: Network = strategy.model
        self._before = copy.deepcopy(network)
        self._before.load_state_dict(self.weights, strict=False)  # it has the new head too
        self._before.eval().requires_grad_(False)
        old = [u for units in network.heads.units[: strategy.experience.current_experience] for u in units]
        self._old_units = torch.tensor(old, device=strategy.device)

    def before_backward(self, strategy: Learner, **_: Any) -> None:
        logits = precise(strategy.mb_output)
        targets = F.one_hot(strategy.mb_y, logits.shape[1]).to(logits.dtype)
        if self.weights:
            with torch.no_grad():
                with strategy.autocast():
                    before = self._before(strategy.mb_x, strategy.mb_task_id)
                targets = torch.where(self._is_old(strategy, logits), precise(before).sigmoid(), targets)
        strategy.loss = F.binary_cross_entropy_with_logits(logits, targets)

    def _is_old(self, learner: Learner, logits: Tensor) -> Tensor:
        """Which logits are of classes that were there before the experience: (B, classes) or (1, classes)."""
        if learner.model.heads.scenario == "task-incremental":
            old: Tensor = learner.mb_task_id < learner.experience.current_experience
            return old[:, None].expand_as(logits)
        return torch.zeros_like(logits[:1], dtype=torch.bool).index_fill_(1, self._old_units, True)

    # Exemplars and their means.

    @torch.no_grad()
    def after_training_exp(self, strategy: Learner, **_: Any) -> None:
        network: Network = strategy.model
        was_training = network.training
        network.eval()
        index = strategy.experience.current_experience
        data = strategy.data[index]
        ranks = herding(self._features(strategy, data.images), data.labels)
        self.memory.add(data, task=strategy.task_label(index), experience=index, ranks=ranks)
        self._means = self._class_means(strategy)
        network.train(was_training)
        self.weights = {name: t.detach().clone() for name, t in network.state_dict().items()}
        self._hook = network.heads.register_forward_hook(self._nearest_mean)

    def _features(self, learner: Learner, images: Images) -> Tensor:
        """φ, (N, d), of images (N, C, H, W) that are not augmented."""
        with learner.autocast():
            batches = ahead(images, slices(len(images), AT_ONCE))
            parts = [learner.model.backbone(learner.transform.evaluate(batch)) for batch in batches]
        return F.normalize(precise(torch.cat(parts)), dim=1)

    def _class_means(self, learner: Learner) -> dict[int, tuple[Tensor, Tensor]]:
        """Of each task label: the labels (K,) that it has, and their μ (K, d)."""
        features = self._features(learner, self.memory["images"])
        means = {}
        for task in torch.unique(self.memory["tasks"]).tolist():
            own = self.memory["tasks"] == task
            labels = torch.unique(self.memory["labels"][own])
            of_class = [features[own & (self.memory["labels"] == label)].mean(0) for label in labels]
            means[int(task)] = labels, F.normalize(torch.stack(of_class), dim=1)
        return means

    # Classification.

    def _nearest_mean(self, heads: nn.Module, args: tuple[Tensor, int], logits: Tensor) -> Tensor:
        """φ·μ_c in place of the heads' logits: features (..., d) -> (..., classes)."""
        features, experience = args
        labels, means = self._means[experience if heads.scenario == "task-incremental" else 0]
        answer = F.normalize(precise(features), dim=-1) @ means.T
        return torch.full_like(logits, MASKED, dtype=answer.dtype).index_copy(-1, labels, answer)

    def state(self) -> State:
        return super().state() | {f"before.{name}": t for name, t in self.weights.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.weights = {name.removeprefix("before."): t for name, t in state.items() if name.startswith("before.")}


def herding(features: Tensor, labels: Tensor) -> Tensor:
    """The order in which herding chooses the images of each class (algorithm 4).

    Args:
        features: (N, d), φ.
        labels: (N,).

    Returns:
        (N,) int64: 0 for the first of its class.
    """
    ranks = torch.zeros_like(labels)
    for label in torch.unique(labels):
        rows = torch.nonzero(labels == label)[:, 0]
        ranks[rows] = _herding_of_one(features[rows])
    return ranks


def _herding_of_one(features: Tensor) -> Tensor:
    """The same for the images of one class, (n, d) -> (n,)."""
    mean, total = features.mean(0), torch.zeros_like(features[0])
    ranks = torch.zeros(len(features), dtype=torch.int64, device=features.device)
    taken = torch.zeros(len(features), device=features.device)
    for k in range(len(features)):
        nearest = (torch.linalg.vector_norm(mean - (features + total) / (k + 1), dim=1) + taken).argmin()
        ranks[nearest] = k
        taken[nearest] = torch.inf
        total += features[nearest]
    return ranks
