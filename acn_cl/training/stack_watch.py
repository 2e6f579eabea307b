"""What is measured while a stack trains: the same as :class:`acn_cl.training.watch.LayerWatch`, for every run."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from acn_cl.training.network import Network
from acn_cl.training.watch import layer_of_parameters


class StackWatch:
    """Sums of the loss and of the gradient's norm by layer, on the device; R runs, L layers.

    Args:
        template: the network's shape.
        runs: R.
        device: of the sums.
    """

    def __init__(self, template: Network, runs: int, device: torch.device) -> None:
        self._template = template
        self._device = device
        self.loss = torch.zeros(runs, device=device)
        self.norms = torch.zeros(runs, template.backbone.depth + 2, device=device)
        self.steps = 0

    def begin_experience(self, moved: Sequence[str]) -> None:
        """From here on gradients come for these parameters, in this order."""
        layers = layer_of_parameters(self._template)
        self._layers = torch.tensor([layers[name] for name in moved], device=self._device)

    def begin_epoch(self) -> None:
        """Sum from zero."""
        self.loss.zero_()
        self.norms.zero_()
        self.steps = 0

    def add(self, loss: Tensor, gradients: Sequence[Tensor]) -> None:
        """One step's losses (R,) and gradients, (R, ...) each, of the loss alone."""
        norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients], 1)
        squares = norms.to(self.norms.dtype) ** 2
        self.norms += torch.zeros_like(self.norms).index_add_(1, self._layers, squares).sqrt()
        self.loss += loss
        self.steps += 1

    def means(self) -> list[list[float]]:
        """For each run the epoch's mean loss, then the mean norm at each layer. Waits for the device."""
        sums = torch.cat([self.loss[:, None], self.norms], 1)
        means: list[list[float]] = (sums / max(1, self.steps)).tolist()
        return means

    def of_run(self, run: int) -> dict[str, Tensor]:
        """One run's sums, as ``LayerWatch.sums`` gives them."""
        return {"norms": self.norms[run], "loss": self.loss[run], "steps": torch.tensor(self.steps)}

    def load(self, sums: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from the sums of every run."""
        self.norms.copy_(torch.stack([s["norms"] for s in sums]))
        self.loss.copy_(torch.stack([s["loss"] for s in sums]))
        self.steps = int(sums[0]["steps"])
