"""One run of a stack, as whoever keeps its folder sees it."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from acn_cl.spec import Experiment
from acn_cl.training.device import choose_device, choose_precision
from acn_cl.training.network import Network
from acn_cl.training.placement import parts_of
from acn_cl.training.session import Results, build_network, build_own_strategy, build_stream


class StackedRun:
    """What a run is before and after it is trained; the attributes are those of ``Session``.

    Args:
        experiment: what to run.
        seed: the run's seed.

    Raises:
        UserError: device or data cannot be had as the spec asks.
    """

    def __init__(self, experiment: Experiment, seed: int) -> None:
        self.experiment, self.seed = experiment, seed
        self.device = choose_device(experiment.device)
        self.precision = choose_precision(experiment.precision, self.device)
        self.seeds = experiment.seeds_of(seed)
        self.stream = build_stream(experiment, self.seeds)
        self.streamed = False
        """Whether images come from the host batch by batch; who trains the run decides."""
        self.compiled = False
        """Whether steps were computed by compiled code; known at the end."""
        self.results = Results()
        self.failure: Exception | None = None
        """Why the run ended before its stream did."""
        self.weights: dict[str, Tensor] = {}
        """The final parameters by name, on the CPU; empty before the end."""

    @property
    def experiences(self) -> int:
        """How many experiences will be trained."""
        return self.experiment.stream.stop_after or len(self.stream.experiences)

    @property
    def parts(self) -> list[Any]:
        """Every part of the stream that is read."""
        return list(parts_of(self.stream, self.experiences))

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Images for training, test and validation, and classes, of each experience; equal in a stack."""
        return tuple(
            (len(e.train), len(e.test), len(e.validation) if e.validation else 0, len(e.classes))
            for e in self.stream.experiences
        )

    def build_network(self) -> Network:
        """The run's initial network, on the CPU."""
        return build_network(self.experiment, self.seeds, self.stream)

    def build_strategy(self) -> Any:
        """The strategy's plug-in."""
        return build_own_strategy(self.experiment, self.seeds)

    def note_layers(self, experience: int, epoch: int, quantity: str, values: Sequence[float]) -> None:
        """Add a value a layer to the table of layers."""
        self.results.layers.extend(
            {"trained": experience, "epoch": epoch, "layer": layer, "quantity": quantity, "value": value}
            for layer, value in enumerate(values)
        )

    def note_scores(
        self,
        trained: int,
        step: int,
        evaluated: int,
        part: str,
        condition: str,
        accuracy: Sequence[float],
        loss: Sequence[float],
        samples: int,
    ) -> None:
        """Add a row a depth to the table of accuracies."""
        self.results.accuracy.extend(
            {
                "trained": trained,
                "step": step,
                "evaluated": evaluated,
                "part": part,
                "condition": condition,
                "depth": depth,
                "accuracy": right,
                "loss": mean_loss,
                "samples": samples,
            }
            for depth, (right, mean_loss) in enumerate(zip(accuracy, loss, strict=True))
        )
