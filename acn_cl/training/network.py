"""A backbone with its heads, as Avalanche's strategies expect a model to be."""

from typing import Any

import torch
from avalanche.models import MultiTaskModule
from torch import Tensor

from acn_cl.backbones.backbone import Backbone
from acn_cl.training.heads import Heads
from acn_cl.training.layer_norms import compute_in_fp32


class Network(MultiTaskModule):
    """``backbone`` -> features -> ``heads`` -> logits.

    A multi-task module in Avalanche's sense: it is called with the images and their task labels.
    """

    def __init__(self, backbone: Backbone, heads: Heads) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = heads
        compute_in_fp32(self)

    def adaptation(self, experience: Any) -> None:
        """Avalanche calls this before training on and before evaluating an experience; only training adds units."""
        if self.training:
            self.heads.grow(experience.current_experience, next(self.backbone.parameters()).device)

    def forward(self, images: Tensor, task_labels: Tensor | int) -> Tensor:
        """Logits.

        Args:
            images: (B, C, H, W), normalised.
            task_labels: one label for the whole batch, or (B,) of them. In a mixed batch of task-incremental heads,
                shorter rows are filled with the smallest number of their type, which a softmax turns into 0, and which
                label smoothing leaves out.

        Returns:
            (B, C).
        """
        features = self.backbone(images)
        if isinstance(task_labels, int):
            return self.heads(features, task_labels)  # type: ignore[no-any-return]
        if self.heads.scenario != "task-incremental":
            return self.heads(features, 0)  # type: ignore[no-any-return]
        return self._mixed(features, task_labels)

    def _mixed(self, features: Tensor, task_labels: Tensor) -> Tensor:
        answers = {int(t): self.heads(features[task_labels == t], int(t)) for t in torch.unique(task_labels)}
        width = max(answer.shape[-1] for answer in answers.values())
        some: Tensor = next(iter(answers.values()))
        logits = some.new_full((len(features), width), torch.finfo(some.dtype).min)
        for task, answer in answers.items():
            logits[task_labels == task, : answer.shape[-1]] = answer
        return logits
