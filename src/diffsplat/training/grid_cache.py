"""Splat grids of a trained reconstructor, computed once and kept on disk for the stages after it."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from diffsplat.core import SplatGrid, Views
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.io.file_access import atomic_path
from diffsplat.models import GSRecon
from diffsplat.training.batch_prefetch import Prefetcher

logger = logging.getLogger(__name__)

_SHARD_GRIDS = 32
_BATCH = 4


class GridTable:
    """Splat grids in half precision, on disk.

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
        return SplatGrid(torch.from_numpy(np.stack([self._one(index) for index in indices])).float())

    def batches(self, size: int) -> Iterator[SplatGrid]:
        """All grids in order, ``size`` at once."""
        for start in range(0, self._count, size):
            yield self.read(range(start, min(start + size, self._count)))

    def spread(self, count: int) -> Iterator[SplatGrid]:
        """About ``count`` of the grids, evenly spread, a few at once."""
        chosen = sorted({int(index) for index in np.linspace(0, self._count - 1, min(count, self._count))})
        for start in range(0, len(chosen), _BATCH):
            yield self.read(chosen[start : start + _BATCH])

    def _one(self, index: int) -> np.ndarray:
        """One grid as it is stored.

        Its shard is open only meanwhile: there may be more shards than files can be open.
        """
        offset = index % _SHARD_GRIDS
        return np.load(_shard(self._folder, index - offset), mmap_mode="r")[offset]


def grid_table(reconstructor: Path, dataset: ObjectDataset, cache: Path) -> GridTable:
    """The grid of every row from the front, from the cache where it is there: the views that text generation makes.

    An interrupted call is continued by the next.

    Args:
        reconstructor: folder of the trained reconstructor.
        dataset: the objects.
        cache: folder for the shards; 1.6 MB for a grid of 128 pixels.
    """
    folder = cache / _fingerprint(reconstructor, dataset)
    count = len(dataset)
    missing = [start for start in range(0, count, _SHARD_GRIDS) if not _shard(folder, start).is_file()]
    if missing:
        logger.info("reconstructing %d objects into %s", count, folder)
        folder.mkdir(parents=True, exist_ok=True)
        _reconstruct(reconstructor, dataset, folder, missing)
    return GridTable(folder, count)


def _reconstruct(reconstructor: Path, dataset: ObjectDataset, folder: Path, missing: Sequence[int]) -> None:
    device = caching_device()
    network = GSRecon.from_pretrained(reconstructor).to(device)
    ends = {start: min(start + _SHARD_GRIDS, len(dataset)) for start in missing}
    batches = [
        range(first, min(first + _BATCH, end))
        for start, end in ends.items()
        for first in range(start, end, _BATCH)
    ]

    def load(number: int) -> Views:
        return Views.concatenate([dataset.canonical(index) for index in batches[number]])

    with (
        Prefetcher(load, range(len(batches)), 2) as views,
        tqdm(total=len(missing), unit="shard", desc="grids") as bar,
    ):
        for start, end in ends.items():
            grids: list[Tensor] = []
            while sum(map(len, grids)) < end - start:
                with torch.no_grad():
                    grids.append(network(views.take().to(device)).values.half().cpu())
            _save(torch.cat(grids).numpy(), _shard(folder, start))
            bar.update()


def _save(values: np.ndarray, path: Path) -> None:
    with atomic_path(path, force=True) as temporary, temporary.open("wb") as file:
        np.save(file, values)


def _shard(folder: Path, start: int) -> Path:
    return folder / f"{start:06d}.npy"


def _fingerprint(reconstructor: Path, dataset: ObjectDataset) -> str:
    """Changes with the weights of the reconstructor and with the images of the objects."""
    digest = hashlib.sha256(folder_digest(reconstructor))
    for index, row in enumerate(dataset.rows):
        digest.update(json.dumps([dataset.pixels_key(index), row.ring_views(0)]).encode())
    return digest.hexdigest()[:16]


def caching_device() -> torch.device:
    """Where caches are computed: on the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def folder_digest(folder: Path) -> bytes:
    """Changes with the weights and settings in a network's folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix in (".safetensors", ".json"):
            digest.update(path.read_bytes())
    return digest.digest()
