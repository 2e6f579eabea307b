"""Training on everything so far, from where the weights are."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

from acn_cl.strategies.plugin import LearnerPlugin
from acn_cl.training.batches import DeviceData
from acn_cl.training.images import joined
from acn_cl.training.learner import Learner


class Cumulative(LearnerPlugin):
    """Each experience goes on training the network on all images so far together, old and new alike.

    An epoch is one pass over all of them: a stream of T experiences costs (T+1)/2 times as much as naive. Old images
    are the stream's own, not copies that the strategy keeps.

    Moves: the backbone and every head seen so far.
    """

    in_parts = True

    def after_train_dataset_adaptation(self, strategy: Learner, **_: Any) -> None:
        index = strategy.experience.current_experience
        seen = strategy.data[: index + 1]
        together = DeviceData(joined([d.images for d in seen]), torch.cat([d.labels for d in seen]))
        tasks = [torch.full_like(data.labels, strategy.task_label(i)) for i, data in enumerate(seen)]
        strategy.train_on(together, torch.cat(tasks))

    def images_an_epoch(self, sizes: Sequence[int]) -> list[int]:
        return list(accumulate(sizes))
