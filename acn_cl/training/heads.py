"""The classifier above the backbone, which grows with the stream.

One linear block is added for every experience, when the experience is first trained (never by an evaluation):

====================  ===================================================================
task-incremental      experience t is answered by block t alone
class-incremental     every experience is answered by all blocks so far, side by side
domain-incremental    one block, there from the start
====================  ===================================================================

These are heads of our own because Avalanche's multi-head raises under bf16 autocast and vmap, and its growing head
replaces its parameter, which loses the optimiser's state; here earlier blocks stay the parameters that they are.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

MASKED = -1000.0  # Avalanche's logit for a class that a head reaches over and has not seen


class Heads(nn.Module):
    """Linear blocks over features of size d.

    Args:
        feature_size: d.
        units: the label of each unit of each experience's block, in the stream's label space, ascending.
        scenario: task-, class- or domain-incremental.
        common_labels: whether labels of several experiences are told apart by their value (``seen-order``,
            ``global``), so that a label may lie beyond a block's units; see :meth:`_spread`.
        random_state: gives the context in which the block of an experience is initialised, so that it does not
            depend on what was drawn before.
    """

    def __init__(
        self,
        feature_size: int,
        units: Sequence[Sequence[int]],
        scenario: str,
        *,
        common_labels: bool,
        random_state: Callable[[int], AbstractContextManager[None]],
    ) -> None:
        super().__init__()
        self.feature_size, self.units, self.scenario = feature_size, units, scenario
        self.common_labels = common_labels
        self._random_state = random_state
        self.blocks = nn.ModuleList()
        if scenario == "domain-incremental":
            self._add_block(None)

    def grow(self, experience: int, device: torch.device) -> None:
        """Add what training on ``experience`` needs and is not there yet."""
        if self.scenario != "domain-incremental":
            while len(self.blocks) <= experience:
                self._add_block(device)

    def _add_block(self, device: torch.device | None) -> None:
        index = len(self.blocks)
        with self._random_state(index):
            # Drawn on the CPU, so that the numbers are the same on every device.
            self.blocks.append(nn.Linear(self.feature_size, len(self.units[index])).to(device))

    def can_answer(self, experience: int) -> bool:
        """Whether the units that ``experience`` is answered with exist."""
        return self.scenario == "domain-incremental" or experience < len(self.blocks)

    def forward(self, features: Tensor, experience: int) -> Tensor:
        """Logits of one experience.

        Args:
            features: (..., d); leading axes are batch, or depth and batch.
            experience: its index.

        Returns:
            (..., C), one logit for each label from 0 on.
        """
        answering = [experience] if self.scenario == "task-incremental" else range(len(self.blocks))
        logits = torch.cat([self.blocks[index](features) for index in answering], dim=-1)
        return self._spread(logits, [u for index in answering for u in self.units[index]])

    def _spread(self, logits: Tensor, labels: list[int]) -> Tensor:
        """Put the logits at their labels, filled up as Avalanche fills them.

        A head reaches from 0 to its largest label; what it has not seen in between is masked with -1000. Beyond it, up
        to the largest label that any head has seen, Avalanche's multi-head pads with zeros, which take part in the
        softmax.
        """
        if not self.common_labels:
            return logits
        size = 1 + max(max(self.units[index]) for index in range(len(self.blocks)))
        if labels == list(range(size)):
            return logits
        wide = logits.new_zeros(*logits.shape[:-1], size)
        wide[..., : max(labels) + 1] = MASKED
        return wide.index_copy(-1, torch.tensor(labels, device=logits.device), logits)
