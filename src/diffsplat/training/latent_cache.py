"""Latents of a data set, computed once and kept on disk."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from diffsplat.core import Cameras, Views
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.data.object_row import ObjectRow
from diffsplat.io.file_access import atomic_path, make_folder
from diffsplat.training.batch_prefetch import Prefetcher
from diffsplat.training.grid_cache import caching_device, folder_digest
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.view_encoder import ViewEncoder

logger = logging.getLogger(__name__)

_ENCODED_AT_ONCE = 4
_SHARD_RINGS = 128


@dataclass(frozen=True)
class ObjectRing:
    """Four views of an object.

    Args:
        row: of the data set.
        views: of the row, in the order of their azimuths; latents are in the world of the first.
    """

    row: int
    views: tuple[int, ...]


@dataclass(frozen=True)
class LatentTable:
    """Latents of rings.

    Args:
        rings: ``N`` rings; that of every object from the front comes first, in the order of the rows.
        latents: ``[N, V, C, h, w]`` half precision.
        cameras: ``[N, V]`` of the views.
    """

    rings: Sequence[ObjectRing]
    latents: Tensor
    cameras: Cameras

    def save(self, path: Path) -> None:
        """Write the tensors to one safetensors file, complete or not at all."""
        tensors = {
            "latents": self.latents,
            "camera_to_world": self.cameras.camera_to_world.contiguous(),
            "intrinsics": self.cameras.intrinsics.contiguous(),
        }
        with atomic_path(path, force=True) as temporary:
            save_file(tensors, temporary, metadata={"image_size": str(self.cameras.width)})

    @classmethod
    def load(cls, rings: Sequence[ObjectRing], paths: Sequence[Path]) -> Self:
        """Read what :meth:`save` wrote to several files, in their order."""
        with safe_open(paths[0], framework="pt") as file:
            size = int(file.metadata()["image_size"])
        parts = [load_file(path) for path in paths]
        latents, poses, intrinsics = (
            torch.cat([part[name] for part in parts]) for name in ("latents", "camera_to_world", "intrinsics")
        )
        return cls(rings, latents, Cameras(poses, intrinsics, size, size))


def latent_table(
    folders: StageFolders, dataset: ObjectDataset, *, rings: int = 1, channels: int = 0
) -> LatentTable:
    """The latents of a data set, from the cache where it has them; otherwise one process computes them.

    An interrupted call is continued by the next.

    Args:
        folders: of the run.
        dataset: the objects.
        rings: how many rings of an object, see :func:`object_rings`.
        channels: how many of the latents' channels, the first ones; 0 for all.
    """
    chosen = object_rings(dataset, rings)
    folder = folders.latents / _fingerprint(folders, dataset, chosen, channels)
    paths = {start: folder / f"{start:06d}.safetensors" for start in range(0, len(chosen), _SHARD_RINGS)}
    make_folder(folder)
    with FileLock(folder.with_suffix(".lock")):
        missing = [start for start, path in paths.items() if not path.is_file()]
        if missing:
            logger.info("encoding %d rings of views into %s", len(chosen), folder)
            encoder = ViewEncoder.open(folders).to(caching_device())
            for start in tqdm(missing, unit="shard", desc="latents"):
                shard = chosen[start : start + _SHARD_RINGS]
                _encode(encoder, dataset, shard, channels).save(paths[start])
    return LatentTable.load(chosen, list(paths.values()))


def object_rings(dataset: ObjectDataset, count: int) -> list[ObjectRing]:
    """Rings of every row: the one from the front, then up to ``count - 1`` others, each from a random view on."""
    fronts = [ObjectRing(index, tuple(row.ring_views(0))) for index, row in enumerate(dataset.rows)]
    return fronts + [
        ObjectRing(index, views)
        for index, row in enumerate(dataset.rows)
        for views in _other_rings(row, count - 1)
    ]


def _other_rings(row: ObjectRow, count: int) -> list[tuple[int, ...]]:
    random = np.random.default_rng(list(row.object_id.encode()))
    chosen = random.permutation([ring for ring in row.rings if ring != 0])[:count]
    return [tuple(np.roll(row.ring_views(int(ring)), random.integers(4)).tolist()) for ring in chosen]


def _encode(
    encoder: ViewEncoder, dataset: ObjectDataset, rings: Sequence[ObjectRing], channels: int
) -> LatentTable:
    batches = [rings[start : start + _ENCODED_AT_ONCE] for start in range(0, len(rings), _ENCODED_AT_ONCE)]

    def load(number: int) -> Views:
        return Views.concatenate([dataset.load_views(ring.row, ring.views) for ring in batches[number]])

    latents: list[Tensor] = []
    cameras: list[Cameras] = []
    with Prefetcher(load, range(len(batches)), 2) as views:
        for _ in batches:
            taken = views.take()
            encoded = encoder(taken.to(caching_device()))
            latents.append(encoded[:, :, : channels or None].half().cpu())
            cameras.append(taken.cameras)
    first = cameras[0]
    together = replace(
        first,
        camera_to_world=torch.cat([one.camera_to_world for one in cameras]),
        intrinsics=torch.cat([one.intrinsics for one in cameras]),
    )
    return LatentTable(rings, torch.cat(latents), together)


def _fingerprint(
    folders: StageFolders, dataset: ObjectDataset, rings: Sequence[ObjectRing], channels: int
) -> str:
    """Changes with the networks, and with the images and cameras of the rings."""
    networks = (folders.trained("reconstructor"), folders.trained("autoencoder"))
    digest = hashlib.sha256(b"".join(map(folder_digest, networks)))
    digest.update(str(channels).encode())
    for ring in rings:
        poses = dataset.rows[ring.row].cameras[list(ring.views)].camera_to_world.tolist()
        digest.update(json.dumps([dataset.pixels_key(ring.row), ring.views, poses]).encode())
    return digest.hexdigest()[:16]
