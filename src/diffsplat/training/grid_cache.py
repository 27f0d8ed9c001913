"""Splat grids of a trained reconstructor, computed once and kept on disk for the stages after it."""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from diffsplat.core import SplatGrid, Views
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.io.file_access import atomic_path, make_folder
from diffsplat.models import GSRecon
from diffsplat.pretrained.network_folders import NetworkT, load_network
from diffsplat.training.batch_prefetch import Prefetcher
from diffsplat.training.trainer_config import Place, Places
from diffsplat.training.view_batches import epoch_indices, held_out

logger = logging.getLogger(__name__)

_SHARD_GRIDS = 32
_AT_ONCE = 4


@dataclass(frozen=True)
class Pick:
    """Four views of an object that a grid is made from.

    Args:
        row: of the data set.
        views: of the row, a ring in the order of its azimuths.
    """

    row: int
    views: tuple[int, ...]


def canonical_picks(dataset: ObjectDataset) -> list[Pick]:
    """Every row once, from the front: the views that text generation makes."""
    return [Pick(index, tuple(row.ring_views(0))) for index, row in enumerate(dataset.rows)]


def turned_picks(dataset: ObjectDataset, seed: int) -> list[Pick]:
    """Every row that is no repainted version once, in a random one of its rings, from a random one of its sides."""
    picks = []
    for index, row in enumerate(dataset.rows):
        if not row.variant:
            picks.append(Pick(index, tuple(row.turned_ring(np.random.default_rng([seed, index])))))
    return picks


class GridTable:
    """Grids of picks in half precision, on disk.

    Args:
        folder: of the shards.
        count: number of grids in them.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count

    def __len__(self) -> int:
        return self._count

    def read(self, indices: Sequence[int]) -> SplatGrid:
        """``[len(indices), V, 12, H, W]`` in single precision."""
        return _stacked([self.one(index) for index in indices])

    def one(self, index: int) -> np.ndarray:
        """One grid as it is stored.

        Its shard is open only meanwhile: there may be more shards than files can be open.
        """
        place = index % _SHARD_GRIDS
        return np.load(_shard(self._folder, index - place), mmap_mode="r")[place]

    def batches(self, size: int) -> Iterator[SplatGrid]:
        """All grids in order, ``size`` at once."""
        for start in range(0, self._count, size):
            yield self.read(range(start, min(start + size, self._count)))


def grid_table(reconstructor: Path, dataset: ObjectDataset, picks: Sequence[Pick], cache: Path) -> GridTable:
    """The grids of picks, from the cache where it has them. An interrupted call is continued by the next.

    Args:
        reconstructor: folder of the trained reconstructor.
        dataset: the objects.
        picks: of which views.
        cache: folder for the shards; 1.6 MB for a grid of 128 pixels.
    """
    folder = cache / _fingerprint(reconstructor, dataset, picks)
    missing = [start for start in range(0, len(picks), _SHARD_GRIDS) if not _shard(folder, start).is_file()]
    if missing:
        logger.info("reconstructing %d objects into %s", len(picks), folder)
        make_folder(folder)
        _reconstruct(reconstructor, dataset, picks, folder, missing)
    return GridTable(folder, len(picks))


def _reconstruct(
    reconstructor: Path, dataset: ObjectDataset, picks: Sequence[Pick], folder: Path, missing: Sequence[int]
) -> None:
    network, device = load_for_caching(GSRecon, reconstructor)
    parts = [
        picks[place : min(place + _AT_ONCE, start + _SHARD_GRIDS)]
        for start in missing
        for place in range(start, min(start + _SHARD_GRIDS, len(picks)), _AT_ONCE)
    ]

    def load(index: int) -> Views:
        return Views.concatenate([dataset.load_views(pick.row, pick.views) for pick in parts[index]])

    with (
        Prefetcher(load, 0, len(parts), 2) as views,
        tqdm(total=len(missing), unit="shard", desc="grids") as bar,
    ):
        for start in missing:
            grids: list[Tensor] = []
            count = min(_SHARD_GRIDS, len(picks) - start)
            while sum(map(len, grids)) < count:
                with torch.no_grad():
                    grids.append(network(views.take().to(device)).values.half().cpu())
            _save(torch.cat(grids).numpy(), _shard(folder, start))
            bar.update()


def _stacked(grids: Sequence[np.ndarray]) -> SplatGrid:
    return SplatGrid(torch.from_numpy(np.stack(grids)).float())


def _save(values: np.ndarray, path: Path) -> None:
    with atomic_path(path, force=True) as temporary, temporary.open("wb") as file:
        np.save(file, values)


def _shard(folder: Path, start: int) -> Path:
    return folder / f"{start:06d}.npy"


def _fingerprint(reconstructor: Path, dataset: ObjectDataset, picks: Iterable[Pick]) -> str:
    """Changes with the weights of the reconstructor and with the pictures of the picks."""
    digest = hashlib.sha256(folder_digest(reconstructor))
    for pick in picks:
        digest.update(json.dumps([dataset.pixels_key(pick.row), pick.views]).encode())
    return digest.hexdigest()[:16]


def load_for_caching(kind: type[NetworkT], folder: Path) -> tuple[NetworkT, torch.device]:
    """A network that fills a cache, on the GPU where there is one, and the device that it is on."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_network(kind, folder)
    # The annotation that diffusers gives to its own .to names no device.
    cast(nn.Module, network).to(device)
    return network, device


def folder_digest(folder: Path) -> bytes:
    """Changes with the weights and settings in a network's folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix in (".safetensors", ".json"):
            digest.update(path.read_bytes())
    return digest.digest()


@dataclass(frozen=True)
class GridBatch:
    """What the autoencoder learns from.

    Args:
        grids: ``[B]`` objects.
        views: the inputs and other views of the first objects, maybe fewer than ``B``; None for no object.
    """

    grids: SplatGrid
    views: Views | None


@dataclass(frozen=True)
class GridSourceConfig:
    """Where grids come from.

    Args:
        data: folders of shards.
        reconstructor: folder of the trained reconstructor.
        cache: folder for the grids.
        batch_size: objects of a batch.
        rendered_objects: how many of them come with views to compare a rendering with.
        novel_views: views of an object beside its four inputs.
        evaluation_objects: held-out objects that figures are measured on.
        seed: of the order and of the choice of views.
    """

    data: Places = ()
    reconstructor: Place = Path("reconstructor")
    cache: Place = Path("grids")
    batch_size: int = 8
    rendered_objects: int = 1
    novel_views: int = 4
    evaluation_objects: int = 32
    seed: int = 0


class GridSource:
    """Grids of every object from the front and of every original also in a random ring, in shuffled epochs."""

    def __init__(self, config: GridSourceConfig) -> None:
        self.config = config
        self._train = ObjectDataset(config.data, split="train")
        self._picks = canonical_picks(self._train)
        turned = turned_picks(self._train, config.seed)
        self._tables = [self._table(self._train, picks) for picks in (self._picks, turned)]
        self._picks += turned
        self._test = held_out(config.data)
        count = min(config.evaluation_objects, len(self._test))
        chosen = {int(index) for index in np.linspace(0, len(self._test) - 1, count)}
        self._tested = [pick for pick in turned_picks(self._test, config.seed) if pick.row in chosen]

    @property
    def image_size(self) -> int:
        """Edge of the grids in pixels."""
        return self._train.rows[0].cameras.width

    def batch(self, step: int) -> GridBatch:
        """Objects of one step; a step's batch depends on the seed and its number alone."""
        size = self.config.batch_size
        places = range(step * size, (step + 1) * size)
        indices = epoch_indices(len(self._picks), places, self.config.seed)
        rendered = [self._picks[index] for index in indices[: self.config.rendered_objects]]
        return GridBatch(self._grids(indices), self._views(self._train, rendered, step))

    def evaluation(self) -> list[GridBatch]:
        """Held-out objects, spread over the table, always with the same views."""
        table = self._table(self._test, self._tested)
        size = self.config.batch_size
        return [
            GridBatch(
                table.read(range(start, min(start + size, len(table)))),
                self._views(self._test, self._tested[start : start + size], 0),
            )
            for start in range(0, len(table), size)
        ]

    def spread(self, count: int) -> Iterator[SplatGrid]:
        """About ``count`` of the grids from the front, evenly spread, a few at once."""
        table = self._tables[0]
        chosen = sorted({int(index) for index in np.linspace(0, len(table) - 1, min(count, len(table)))})
        for start in range(0, len(chosen), _AT_ONCE):
            yield table.read(chosen[start : start + _AT_ONCE])

    def _table(self, dataset: ObjectDataset, picks: Sequence[Pick]) -> GridTable:
        return grid_table(self.config.reconstructor, dataset, picks, self.config.cache)

    def _grids(self, indices: Sequence[int]) -> SplatGrid:
        front, turned = self._tables
        return _stacked(
            [front.one(index) if index < len(front) else turned.one(index - len(front)) for index in indices]
        )

    def _views(self, dataset: ObjectDataset, picks: Sequence[Pick], seed: int) -> Views | None:
        """The inputs of the picks and random others of their views."""
        found = []
        for pick in picks:
            others = [view for view in range(len(dataset.rows[pick.row].ring)) if view not in pick.views]
            random = np.random.default_rng([self.config.seed, seed, pick.row])
            novel = random.permutation(others or list(pick.views))
            wanted = [int(novel[index % len(novel)]) for index in range(self.config.novel_views)]
            found.append(dataset.load_views(pick.row, [*pick.views, *wanted]))
        return Views.concatenate(found) if found else None
