"""Batches of posed views, and the order of the objects in every kind of batch."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from diffsplat.core import Views
from diffsplat.data.object_dataset import ObjectDataset, ViewComposition
from diffsplat.data.object_id_lists import read_ids
from diffsplat.data.object_sampling import EpochOrder, noun_weights
from diffsplat.data.object_table import ObjectTable
from diffsplat.data.shard_schema import import_compute
from diffsplat.errors import listed, require, require_at_least
from diffsplat.training.run_folders import RunFolders, StageFolders
from diffsplat.training.stages.stage_interface import BatchSource, SourceConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ViewSourceConfig(SourceConfig):
    """What a batch of views is made of.

    Args:
        batch_size: objects of a batch.
        novel_views: views of an object besides its four inputs.
        evaluation_objects: held-out objects that figures are measured on.
        composition: how views are made of the stored pixels; ``released`` as the paper's networks saw them.
        image_size: pixels per side, a divisor of the data's; those of the data by default.
        balance_nouns: show objects of rare nouns more often and of common ones less, see
            :func:`~diffsplat.data.object_sampling.noun_weights`.
        seed: of the order and of the choice of views.
    """

    batch_size: int = 4
    novel_views: int = 4
    evaluation_objects: int = 32
    composition: ViewComposition = "exact"
    image_size: int | None = None
    balance_nouns: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(1, self, "batch_size")
        require_at_least(0, self, "novel_views", "evaluation_objects", "seed")
        if self.image_size is not None:
            require_at_least(1, self, "image_size")

    def view_size(self, data: Sequence[Path | str], /) -> int:
        """Pixels per side of the views."""
        if self.image_size is None:
            return stored_image_size(data, ", or a divisor of all as source.image_size")
        for stored in _stored_image_sizes(data):
            expected = f"a divisor of the {stored} pixels of the data"
            require(stored % self.image_size == 0, "source.image_size", self.image_size, expected)
        return self.image_size

    def build(self, folders: StageFolders) -> BatchSource[Any]:
        """The source of views."""
        return ViewSource(self, folders)


class ViewSource:
    """Objects in a new random order every epoch; a step's batch depends on the seed and its number alone."""

    def __init__(self, config: ViewSourceConfig, folders: RunFolders) -> None:
        """Read the tables.

        Raises:
            ValueError: for data without normals.
        """
        self.config = config
        self.train = training_objects(folders, config.composition)
        self.test = held_out(folders, config.composition)
        for objects in (self.train, self.test):
            objects.rows.require_geometry()
        self._order = epoch_order_of(self.train, config.seed, balance_nouns=config.balance_nouns)

    def batch(self, step: int) -> Views:
        """``[batch_size, 4 + novel_views]`` views."""
        return self.views(self.train, self.trained_rows(step), self.config.seed + step)

    def evaluation(self) -> list[Views]:
        """Held-out objects, spread over the table, always with the same views."""
        return [self.views(self.test, rows, 0) for rows in self.tested_rows()]

    def trained_rows(self, step: int) -> list[int]:
        """Rows of the training objects of a step."""
        size = self.config.batch_size
        return self._order.rows(range(step * size, (step + 1) * size))

    def tested_rows(self) -> list[list[int]]:
        """Rows of the held-out objects of each evaluation batch."""
        return spread_batches(len(self.test), self.config.evaluation_objects, self.config.batch_size)

    def views(
        self,
        dataset: ObjectDataset,
        rows: Sequence[int],
        seed: int,
        rings: Sequence[Sequence[int] | None] | None = None,
    ) -> Views:
        """Views of some rows, those of the rings drawn with the others unless they are given."""
        novel, size = self.config.novel_views, self.config.image_size
        return Views.concatenate(
            [
                dataset.sample(row, seed, novel_views=novel, size=size, ring=ring)
                for row, ring in zip(rows, rings or [None] * len(rows), strict=True)
            ]
        )


def spread_batches(total: int, count: int, size: int) -> list[list[int]]:
    """At most ``count`` of the numbers from 0 to ``total``, evenly spread, in batches."""
    chosen = [int(number) for number in np.linspace(0, total - 1, min(count, total))]
    return [chosen[start : start + size] for start in range(0, len(chosen), size)]


def stored_image_size(data: Sequence[Path | str], otherwise: str = "") -> int:
    """Pixels per side of the images in folders of shards.

    Args:
        data: the folders.
        otherwise: what else helps, for the error.

    Raises:
        ValueError: when they differ.
    """
    sizes = _stored_image_sizes(data)
    found, expected = listed([str(size) for size in sizes]), "one size (--size of diffsplat data)"
    require(len(sizes) == 1, "the size of the data's images", found, expected + otherwise)
    return sizes[0]


def _stored_image_sizes(data: Sequence[Path | str]) -> list[int]:
    return sorted({ObjectTable([folder])[0].cameras.width for folder in data})


def training_objects(folders: RunFolders, composition: ViewComposition = "exact") -> ObjectDataset:
    """The objects that are trained on: all but those held out, or the few that are overfitted.

    Raises:
        ValueError: when there are fewer than are to be overfitted.
    """
    if not folders.overfit:
        return _objects(folders, "train", composition)
    objects = _objects(folders, "train", composition, variants=False)
    expected = f"at most the {len(objects)} training objects"
    require(folders.overfit <= len(objects), "overfit", folders.overfit, expected)
    objects.rows = objects.rows[: folders.overfit]
    return objects


def held_out(folders: RunFolders, composition: ViewComposition = "exact") -> ObjectDataset:
    """The objects that evaluations are made with: one in ten is held out of training by its name.

    Of a few objects there may be none. Then the training objects serve, and a warning says so. Objects that are
    overfitted are evaluated themselves.
    """
    if folders.overfit:
        return training_objects(folders, composition)
    found = _objects(folders, "all", composition, variants=False)
    tested = found.rows.where("split", "test")
    if not tested.any():
        logger.warning("no object is held out of so few: evaluations are made with the training objects")
        return found
    found.rows = found.rows.select(tested)
    return found


def every_caption(folders: RunFolders) -> list[str]:
    """All captions of the objects of a run, each once."""
    compute = import_compute()
    captions = selected_rows(folders).column("captions")
    return sorted(compute.unique(compute.list_flatten(captions)).to_pylist())


def selected_rows(folders: RunFolders) -> ObjectTable:
    """All rows that a run may use, those held out among them."""
    return _objects(folders, "all").rows


def _objects(
    folders: RunFolders,
    split: Literal["train", "test", "all"],
    composition: ViewComposition = "exact",
    *,
    variants: bool = True,
) -> ObjectDataset:
    ids = None if folders.ids is None else read_ids(folders.ids)
    return ObjectDataset(
        folders.data,
        split=split,
        variants=variants,
        ids=ids,
        cache_gb=folders.data_cache_gb,
        composition=composition,
    )


def epoch_order_of(objects: ObjectDataset, seed: int, *, balance_nouns: bool) -> EpochOrder:
    """The order that objects are trained on in: endless epochs, each shuffled again."""
    rows = objects.rows
    weights = noun_weights(rows.column("noun"), rows.column("object_id")) if balance_nouns else None
    return EpochOrder(len(rows), seed, weights)
