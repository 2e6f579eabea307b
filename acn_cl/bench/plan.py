"""What a bench measures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from acn_cl.errors import SpecError
from acn_cl.spec import Experiment, message_of


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Args:
        device: as in a spec.
        precision: as in a spec; plain Avalanche runs in fp32.
        stream: a task-incremental stream with more experiences than ``rounds``.
        backbone: what the backbones have in common.
        strategies: of the comparison; naive, si, ewc.
        depths: of the comparison, L.
        widths: features of a token, for the growth curve.
        stacks: runs in a stack, for the growth curve; the largest is the one that is compared.
        images: training images a class, for the growth curve; the smallest is used everywhere else.
        experiences: how many are learned when a step is timed, for the growth curve.
        batch_size: images a step and run.
        rounds: how often each side is timed, after one round that does not count.

    Raises:
        SpecError: there is no such device or precision.
    """

    device: str = "auto"
    precision: str = "auto"
    stream: Mapping[str, Any] = field(default_factory=lambda: {"name": "split-cifar100"})
    backbone: Mapping[str, Any] = field(default_factory=lambda: {"name": "ac_mixer", "patch": 4})
    strategies: Sequence[str] = ("naive", "si", "ewc")
    depths: Sequence[int] = (5, 10, 15)
    widths: Sequence[int] = (64, 128, 256)
    stacks: Sequence[int] = (1, 2, 4)
    images: Sequence[int] = (125, 250, 500)
    experiences: Sequence[int] = (2, 20)
    batch_size: int = 64
    rounds: int = 7

    def __post_init__(self) -> None:
        try:
            self.experiment()
        except ValidationError as error:
            first = error.errors()[0]
            raise SpecError(first["loc"], message_of(dict(first))) from None

    def experiment(self, **changes: Any) -> Experiment:
        """One epoch an experience of this plan; ``images``, ``depth``, ``width`` and ``strategy`` may be changed."""
        backbone = {"depth": self.depths[0], "width": self.widths[len(self.widths) // 2], **self.backbone}
        backbone |= {key: changes[key] for key in ("depth", "width") if key in changes}
        return Experiment(
            stream={**self.stream, "images_per_class": changes.get("images", self.images[0])},
            backbone=backbone,
            strategy={"name": changes.get("strategy", "si")},
            epochs=1,
            batch_size=self.batch_size,
            device=self.device,
            precision=changes.get("precision", self.precision),
        )


QUICK = Plan(
    stream={"name": "split-digits", "class_order": "fixed"},
    backbone={"name": "ac_mixer", "patch": 2, "tokens_hidden": 16, "channels_hidden": 64},
    depths=(1, 2),
    widths=(16, 32),
    stacks=(1, 2),
    images=(64, 128),
    experiences=(2, 4),
    batch_size=32,
    rounds=3,
)
"""Small enough for CI: that everything runs, not how fast."""
