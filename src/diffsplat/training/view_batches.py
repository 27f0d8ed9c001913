"""Batches of posed views for the reconstruction stage, and what all sources share."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffsplat.core import Views
from diffsplat.data.object_dataset import ObjectDataset, read_rows
from diffsplat.training.trainer_config import Places

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ViewSourceConfig:
    """What a batch of views is made of.

    Args:
        data: folders of shards.
        batch_size: objects of a batch.
        novel_views: views of an object beside its four inputs.
        evaluation_objects: held-out objects that figures are measured on.
        seed: of the order and of the choice of views.
    """

    data: Places = ()
    batch_size: int = 4
    novel_views: int = 4
    evaluation_objects: int = 32
    seed: int = 0


class ViewSource:
    """Objects in a new random order every epoch; a step's batch depends on the seed and its number alone."""

    def __init__(self, config: ViewSourceConfig) -> None:
        self.config = config
        self._train = ObjectDataset(config.data, split="train")
        self._test = held_out(config.data)

    @property
    def image_size(self) -> int:
        """Edge of the views in pixels."""
        return self._train.rows[0].cameras.width

    def batch(self, step: int) -> Views:
        """``[batch_size, 4 + novel_views]`` views."""
        size = self.config.batch_size
        indices = epoch_indices(len(self._train), range(step * size, (step + 1) * size), self.config.seed)
        return self._views(self._train, indices, self.config.seed + step)

    def evaluation(self) -> list[Views]:
        """Held-out objects, spread over the table, always with the same views."""
        count = min(self.config.evaluation_objects, len(self._test))
        chosen = [int(index) for index in np.linspace(0, len(self._test) - 1, count)]
        size = self.config.batch_size
        return [self._views(self._test, chosen[start : start + size], 0) for start in range(0, count, size)]

    def _views(self, dataset: ObjectDataset, indices: Sequence[int], seed: int) -> Views:
        novel = self.config.novel_views
        return Views.concatenate([dataset.sample(index, seed, novel_views=novel) for index in indices])


def held_out(data: Sequence[Path]) -> ObjectDataset:
    """The objects that evaluations are made with: one in ten is held out of training by its name.

    Of a few objects there may be none. Then the training objects serve, and a warning says so.
    """
    if any(row.split == "test" for folder in data for row in read_rows(folder)):
        return ObjectDataset(data, split="test", variants=False)
    logger.warning("no object is held out of so few: evaluations are made with the training objects")
    return ObjectDataset(data, split="train", variants=False)


def epoch_indices(length: int, places: Sequence[int], seed: int) -> list[int]:
    """What stands at some places of an endless row of shuffled epochs over ``length`` items."""
    orders: dict[int, np.ndarray] = {}
    chosen: list[int] = []
    for place in places:
        epoch, offset = divmod(place, length)
        if epoch not in orders:
            orders[epoch] = np.random.default_rng([seed, epoch]).permutation(length)
        chosen.append(int(orders[epoch][offset]))
    return chosen
