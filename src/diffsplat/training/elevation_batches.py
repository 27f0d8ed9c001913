"""Batches of single images with the elevations of their cameras."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.data.object_sampling import EpochOrder
from diffsplat.errors import InvalidInputError, require_at_least
from diffsplat.training.run_folders import RunFolders, StageFolders
from diffsplat.training.stages.stage_interface import SourceConfig
from diffsplat.training.view_batches import held_out, spread_batches, stored_image_size, training_objects


@dataclass(frozen=True)
class ElevationBatch:
    """Images of single views.

    Args:
        images: ``[B, 3, H, W]`` sRGB 0..1 on white.
        degrees: ``[B]`` elevations in the sign of the released weights: negative above the horizon.
    """

    images: Tensor
    degrees: Tensor


@dataclass(frozen=True)
class ElevationSourceConfig(SourceConfig):
    """What a batch of single views is made of.

    Args:
        batch_size: objects of a batch.
        views: views of an object, drawn from those between the elevations.
        least_degrees: lowest elevation, negative below the horizon; excluded, as the intervals of the network count.
        greatest_degrees: highest elevation; included.
        evaluation_objects: held-out objects that figures are measured on.
        seed: of the order and of the choice of views.
    """

    batch_size: int = 16
    views: int = 8
    least_degrees: float = -10.0
    greatest_degrees: float = 40.0
    evaluation_objects: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(1, self, "batch_size", "views")
        require_at_least(0, self, "evaluation_objects", "seed")

    def view_size(self, data: Sequence[Path | str], /) -> None:
        """None: the networks bring images to their own size, but those of one batch must be of one size.

        Raises:
            ValueError: when the images of the data are of several.
        """
        stored_image_size(data)

    def build(self, folders: StageFolders) -> "ElevationSource":
        """The source of images."""
        return ElevationSource(self, folders)


class ElevationSource:
    """Objects in a new random order every epoch; a step's batch depends on the seed and its number alone."""

    def __init__(self, config: ElevationSourceConfig, folders: RunFolders) -> None:
        """Look for the views.

        Raises:
            ValueError: when no object has a view between the elevations.
        """
        self.config = config
        self._train = training_objects(folders)
        self._test = held_out(folders)
        self._usable = {
            dataset: np.flatnonzero(
                dataset.rows.seen_between(config.least_degrees, config.greatest_degrees)
            ).tolist()
            for dataset in (self._train, self._test)
        }
        if not all(self._usable.values()):
            raise InvalidInputError(
                f"no view has an elevation between {config.least_degrees:g} and {config.greatest_degrees:g} degrees, "
                "expected some in the training data and in what is held out"
            )
        self._order = EpochOrder(len(self._usable[self._train]), config.seed)

    def batch(self, step: int) -> ElevationBatch:
        """``batch_size * views`` images."""
        size, usable = self.config.batch_size, self._usable[self._train]
        positions = self._order.rows(range(step * size, (step + 1) * size))
        random = np.random.default_rng([self.config.seed, step])
        return self._load(self._train, [usable[position] for position in positions], random)

    def evaluation(self) -> list[ElevationBatch]:
        """Held-out objects, spread over the table, always with the same views."""
        usable, size = self._usable[self._test], self.config.batch_size
        return [
            self._load(self._test, [usable[place] for place in part], np.random.default_rng(number * size))
            for number, part in enumerate(spread_batches(len(usable), self.config.evaluation_objects, size))
        ]

    def _load(
        self, dataset: ObjectDataset, indices: Sequence[int], random: np.random.Generator
    ) -> ElevationBatch:
        least, greatest, count = self.config.least_degrees, self.config.greatest_degrees, self.config.views
        images: list[Tensor] = []
        degrees: list[float] = []
        for index in indices:
            row = dataset.rows[index]
            usable = [view for view, angle in enumerate(row.elevations) if least < angle <= greatest]
            drawn = random.choice(usable, count, replace=len(usable) < count).tolist()
            images.append(dataset.load_images(index, drawn))
            degrees += [-row.elevations[view] for view in drawn]
        return ElevationBatch(torch.cat(images), torch.tensor(degrees))
