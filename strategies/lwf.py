"""Learning without Forgetting. Z. Li, D. Hoiem, "Learning without forgetting", 2016, arXiv 1606.09282.

Symbols: p the teacher's answer, the network as it was before the experience; q the network's now; T the temperature.
"""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acn_cl.strategies.plugin import LearnerPlugin, State, precise
from acn_cl.training.heads import Heads
from acn_cl.training.learner import Learner
from acn_cl.training.network import Network


class LwF(LearnerPlugin):
    """New images are to be answered by the old heads as they were before the experience.

    L = ℓ(B) + alpha·Σ_o KL(p_o^(1/T) ‖ q_o^(1/T)), summed over the old heads o, or over the old units of the one head
    in class-incremental streams, the mean over the batch (eq. 2, 3; KL and cross-entropy differ by a constant).

    The old heads read the features of the step's own forward pass, so a step costs one more forward pass, the
    teacher's, however many heads there are. Differs: no warm-up of the new head; the teacher is in evaluation mode
    (Avalanche's is in training mode, and its plug-in runs the network once more for the old heads). Moves: the
    backbone and every head seen so far.
    """

    inert: ClassVar[Mapping[str, Any]] = {"alpha": 0.0}
    keeps_weights = 1

    def __init__(self, *, alpha: float = 1.0, temperature: float = 2.0) -> None:
        super().__init__()
        self.alpha, self.temperature = alpha, temperature
        self.weights: dict[str, Tensor] = {}  # of the teacher

    def before_training_exp(self, strategy: Learner, **_: Any) -> None:
        self.begins(strategy)
        if not self.weights:
            return
        network: Network = strategy.model
        self._teacher = copy.deepcopy(network)
        self._teacher.load_state_dict(self.weights, strict=False)  # it has the new head too, and is not asked for it
        self._teacher.eval().requires_grad_(False)
        self._hook = network.heads.register_forward_pre_hook(self._see)
        self._old = old_units(network.heads, strategy.experience.current_experience, strategy.device)

    def _see(self, _: nn.Module, args: tuple[Tensor, int]) -> None:
        self._features = args[0]

    def before_backward(self, strategy: Learner, **_: Any) -> None:
        if not self.weights:
            return
        with strategy.autocast():
            with torch.no_grad():
                features = self._teacher.backbone(strategy.mb_x)
                before = [self._teacher.heads(features, head)[:, units] for head, units in self._old]
            features = self._features
            now = [strategy.model.heads(features, head)[:, units] for head, units in self._old]
        distilled = [divergence(p, q, self.temperature) for p, q in zip(before, now, strict=True)]
        strategy.loss = strategy.loss + self.alpha * torch.stack(distilled).sum()

    def after_training_exp(self, strategy: Learner, **_: Any) -> None:
        if self.weights:
            self._hook.remove()
            del self._teacher, self._features
        if self.alpha:
            self.weights = {name: t.detach().clone() for name, t in strategy.model.state_dict().items()}

    def state(self) -> State:
        return super().state() | {f"teacher.{name}": t for name, t in self.weights.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.weights = {name.removeprefix("teacher."): t for name, t in state.items() if name.startswith("teacher.")}


def old_units(heads: Heads, experience: int, device: torch.device) -> list[tuple[int, Tensor]]:
    """What was there before ``experience``: which experiences to ask for, and which of their logits (K,) are meant."""
    match heads.scenario:
        case "domain-incremental":
            groups = [(0, heads.units[0])]
        case "class-incremental":
            groups = [(0, [label for units in heads.units[:experience] for label in units])]
        case _:
            groups = [(old, heads.units[old]) for old in range(experience)]
    if not heads.common_labels:
        groups = [(old, range(len(units))) for old, units in groups]
    return [(old, torch.tensor(list(units), device=device)) for old, units in groups]


def divergence(before: Tensor, now: Tensor, temperature: float) -> Tensor:
    """KL(softmax(before/T) ‖ softmax(now/T)) in nats, the mean over the batch: logits (B, units) -> ()."""
    p = (precise(before) / temperature).log_softmax(1)
    q = (precise(now) / temperature).log_softmax(1)
    return F.kl_div(q, p, reduction="batchmean", log_target=True)
