"""Batches of cached latents, some with an image or a control map of their first view."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffsplat.core import Cameras, Views
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.errors import require, require_at_least
from diffsplat.evaluation.control_agreement import control_images
from diffsplat.models.condition_encoder import CONDITION_KINDS, ConditionKind
from diffsplat.training.latent_cache import LatentOptions, LatentTable, latent_table
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.stage_interface import SourceConfig
from diffsplat.training.view_batches import (
    epoch_order_of,
    held_out,
    spread_batches,
    stored_image_size,
    training_objects,
)

_KIND_SHARES = (0.55, 0.15, 0.15, 0.15)
"""Shares of the batches with a condition, by :data:`CONDITION_KINDS`."""

_UNCAPTIONED_SHARES = (0.5, 0.1, 0.1, 0.1)
"""Shares of their objects that come without a caption: an image mostly does, a control map seldom."""


@dataclass(frozen=True)
class ConditionBatch:
    """What the first views of objects look like.

    Args:
        images: ``[B, 3, H, W]`` images or control maps 0..1.
        kind: what they are.
    """

    images: Tensor
    kind: ConditionKind


@dataclass(frozen=True)
class LatentBatch:
    """Cached latents of objects, for a denoiser.

    Args:
        latents: ``[B, V, C, h, w]`` normalised latents.
        cameras: ``[B, V]`` cameras that the latents' views were taken with.
        prompt: one caption an object; empty for none.
        condition: images of the first views; None for text alone.
        views: of the objects; None where they are not read.
    """

    latents: Tensor
    cameras: Cameras
    prompt: tuple[str, ...]
    condition: ConditionBatch | None = None
    views: Views | None = None


@dataclass(frozen=True)
class LatentSourceConfig(SourceConfig):
    """What a batch of latents is made of.

    Args:
        batch_size: objects of a batch.
        evaluation_objects: held-out objects that the loss is measured on; with conditions as many with an image.
        channels: how many of the latents' channels are kept, the first ones; 0 for all.
        rings: rings of an object that are kept. The first is seen from the front; others have any elevation and
            start at any side, and serve batches with a condition alone, since words do not tell the side.
        conditioned_share: share of the batches that come with an image or a control map.
        balance_nouns: show objects of rare nouns more often and of common ones less, see
            :func:`~diffsplat.data.object_sampling.noun_weights`.
        seed: of the order, the captions and the conditions.

    Raises:
        ValueError: for a number out of range.
    """

    batch_size: int = 16
    evaluation_objects: int = 64
    channels: int = 0
    rings: int = 1
    conditioned_share: float = 0.0
    balance_nouns: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(1, self, "batch_size", "rings")
        require_at_least(0, self, "evaluation_objects", "channels", "seed")
        share = self.conditioned_share
        require(0 <= share <= 1, "conditioned_share", share, "a share from 0 to 1")

    def view_size(self, data: Sequence[Path | str], /) -> int:
        """Pixels per side of the views that the latents are made from, those of the data."""
        return stored_image_size(data)

    def build(self, folders: StageFolders) -> "LatentSource":
        """The source of latents."""
        return LatentSource(self, folders)


class LatentSource:
    """Batches of latents; computed at the first use, read from the cache afterwards.

    The objects of a batch have the same kind of condition. A step's batch depends on the seed and its number alone.
    """

    def __init__(self, config: LatentSourceConfig, folders: StageFolders) -> None:
        self.config = config
        self._train = _Split(training_objects(folders), config, folders)
        self._test = _Split(held_out(folders), config, folders)
        self._order = epoch_order_of(self._train.dataset, config.seed, balance_nouns=config.balance_nouns)

    def batch(self, step: int) -> LatentBatch:
        """Objects in shuffled epochs, each with a random one of its captions."""
        size, seed = self.config.batch_size, self.config.seed
        rows = self._order.rows(range(step * size, (step + 1) * size))
        random = np.random.default_rng([seed, step])
        kind = None
        if random.random() < self.config.conditioned_share:
            kind = CONDITION_KINDS[int(random.choice(len(CONDITION_KINDS), p=_KIND_SHARES))]
        return self._train.gather(rows, kind, random)

    def evaluation(self) -> list[LatentBatch]:
        """Held-out objects, spread over the table, always with the same captions, then with images alone."""
        parts = spread_batches(
            len(self._test.dataset), self.config.evaluation_objects, self.config.batch_size
        )
        batches = [self._test.gather(part, None, np.random.default_rng(0)) for part in parts]
        if self.config.conditioned_share:
            conditioned = [self._test.gather(part, "image", np.random.default_rng(0)) for part in parts]
            batches += [replace(batch, prompt=("",) * len(batch.prompt)) for batch in conditioned]
        return batches


class _Split:
    """The latents of a data set, and which of them belong to each of its rows."""

    def __init__(self, dataset: ObjectDataset, config: LatentSourceConfig, folders: StageFolders) -> None:
        self.dataset = dataset
        options = LatentOptions(config.channels)
        self._table: LatentTable = latent_table(folders, dataset, rings=config.rings, options=options)

    def gather(self, rows: list[int], kind: ConditionKind | None, random: np.random.Generator) -> LatentBatch:
        """A batch of rows, from the front; or from anywhere, with a condition."""
        captions = [str(random.choice(self.dataset.rows[row].captions)) for row in rows]
        if kind is None:
            return LatentBatch(self._table.latents[rows].float(), self._table.cameras[rows], tuple(captions))
        chosen = [int(random.choice(self._table.numbers[row])) for row in rows]
        uncaptioned = random.random(len(rows)) < _UNCAPTIONED_SHARES[CONDITION_KINDS.index(kind)]
        prompts = ("" if absent else caption for absent, caption in zip(uncaptioned, captions, strict=True))
        return LatentBatch(
            self._table.latents[chosen].float(),
            self._table.cameras[chosen],
            tuple(prompts),
            ConditionBatch(self._condition_images(chosen, kind), kind),
        )

    def _condition_images(self, chosen: list[int], kind: ConditionKind) -> Tensor:
        rings = [self._table.rings[number] for number in chosen]
        if kind == "image":
            return torch.cat([self.dataset.load_images(ring.row, ring.views[:1]) for ring in rings])
        views = Views.concatenate([self.dataset.load_views(ring.row, ring.views[:1]) for ring in rings])
        return control_images(views, kind)
