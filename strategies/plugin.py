"""What every strategy of ours says of itself, and how its state is saved."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from acn_cl.errors import UserError
from acn_cl.training.learner import Learner

State = dict[str, Any]
"""A strategy's state: by name a tensor, or a plain value that JSON can hold. Nothing in it needs pickle."""


class StrategyPlugin(SupervisedPlugin):
    """An Avalanche plug-in that says what it does; :mod:`acn_cl.strategies.testing` checks that it is so.

    A run is saved by :meth:`state` between any two steps. It goes on in a new process by :meth:`load_state`, called
    before Avalanche's ``train``: the experience that was under way then begins once more, with the network's and the
    optimiser's tensors put back, and :meth:`begins` tells the strategy that it has been begun before.
    """

    moves: ClassVar[Literal["the current head", "every head seen"]] = "every head seen"
    """Which heads a step may move; every step may move the whole backbone."""
    inert: ClassVar[Mapping[str, Any] | None] = None
    """Options with which the strategy does nothing at all: naive, bit for bit. ``None``: there are none."""
    keeps_weights: float = 0
    """How many tensors as large as the network the state holds at most."""
    keeps_images: float = 0
    """How many training images the state holds at most."""
    in_parts: ClassVar[bool] = False
    """Whether a step's batch may be computed in parts, one after the other or each in a process of its own: the plug-in
    then reads nothing of a step but gradients and parameters, and every process does the same with them."""

    begun = -1  # the last experience that was begun

    def begins(self, strategy: Any) -> bool:
        """Whether the current experience begins now; ``False`` when it is gone on with after a resume.

        To be asked once an experience.
        """
        index = int(strategy.experience.current_experience)
        if index == self.begun:
            return False
        self.begun = index
        return True

    def images_an_epoch(self, sizes: Sequence[int]) -> list[int]:
        """How many images an epoch of each experience goes over, whose own are ``sizes``: what a dry run counts."""
        return list(sizes)

    def state(self) -> State:
        """Everything that the strategy remembers between two steps.

        Tensors are the strategy's own, not copies: write them before the next step.
        """
        return {"begun": self.begun}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave, its tensors on the run's device."""
        self.begun = state["begun"]


class LearnerPlugin(StrategyPlugin):
    """A strategy that asks :class:`acn_cl.training.learner.Learner` for images, logits or random numbers."""

    def before_training(self, strategy: Any, **_: Any) -> None:
        """Refuse any other Avalanche strategy.

        Raises:
            UserError: the plug-in is not in a :class:`Learner`.
        """
        if not isinstance(strategy, Learner):
            raise UserError(
                f"{type(self).__name__} takes images and random numbers from acn_cl's Learner, and this is a "
                f"{type(strategy).__name__}; Avalanche has a plug-in of its own for it"
            )


def precise(values: Tensor) -> Tensor:
    """What autocast has rounded to 16 bits, in fp32; anything else as it is."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
