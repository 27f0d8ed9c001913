"""Batches of posed views for denoisers, with latents that are made once where that is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro

from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.errors import require_at_least
from diffsplat.models.denoiser_families import Variant
from diffsplat.training.latent_batches import LatentBatch
from diffsplat.training.latent_cache import LatentOptions, LatentTable, latent_table
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.stage_interface import BatchSource
from diffsplat.training.view_batches import ViewSource, ViewSourceConfig


@dataclass(frozen=True)
class DenoisedViewSourceConfig(ViewSourceConfig):
    """What a batch for a denoiser is made of.

    Args:
        cached_rings: rings of an object whose latents are made once, in half precision, kept on disk next to the
            autoencoder, and held in memory by every process: the one from the front, then others from any side. By
            default none are, and latents are made in every step, of a new ring in every epoch.
        latent_space: of a released autoencoder, where its weights do not tell it.
    """

    cached_rings: int | None = None
    latent_space: tyro.conf.Suppress[Variant | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cached_rings is not None:
            require_at_least(1, self, "cached_rings")

    def build(self, folders: StageFolders) -> BatchSource[Any]:
        """The source of views, or of views with latents."""
        source = ViewSource(self, folders)
        if self.cached_rings is None:
            return source
        options = LatentOptions(size=self.image_size, variant=self.latent_space)
        tables = [
            latent_table(folders, dataset, rings=self.cached_rings, options=options)
            for dataset in (source.train, source.test)
        ]
        return CachedViewSource(source, *tables)


class CachedViewSource:
    """Views of another source, of rings whose latents come with them.

    Args:
        source: chooses the objects and the other views.
        train: latents of its training objects.
        test: latents of those held out.
    """

    def __init__(self, source: ViewSource, train: LatentTable, test: LatentTable) -> None:
        self._source = source
        self._train = train
        self._test = test

    def batch(self, step: int) -> LatentBatch:
        """Objects of the source, each from a random one of its rings."""
        source = self._source
        return self._batch(source.train, self._train, source.trained_rows(step), source.config.seed + step)

    def evaluation(self) -> list[LatentBatch]:
        """Held-out objects of the source, always from the same rings."""
        source = self._source
        return [self._batch(source.test, self._test, rows, 0) for rows in source.tested_rows()]

    def _batch(
        self, dataset: ObjectDataset, table: LatentTable, rows: Sequence[int], seed: int
    ) -> LatentBatch:
        random = np.random.default_rng([seed, len(rows)])
        numbers = [int(random.choice(table.numbers[row])) for row in rows]
        views = self._source.views(dataset, rows, seed, [table.rings[number].views for number in numbers])
        return LatentBatch(table.latents[numbers].float(), views.cameras, views.prompt, views=views)
