"""Latents of a data set, computed once and kept on disk."""

import functools
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffsplat.core import Cameras, Views
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.data.shard_row import ObjectRow
from diffsplat.models.denoiser_families import Variant
from diffsplat.training.batch_prefetch import thread_batches
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.tensor_cache import cached_tensors, caching_device, folder_digest
from diffsplat.training.view_encoder import ViewEncoder

_ENCODED_AT_ONCE = 4
_CHUNK_RINGS = 128
_TENSORS = ("latents", "camera_to_world", "intrinsics")


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
class LatentOptions:
    """What latents are made of besides the networks and the views.

    Args:
        channels: how many of the latents' channels, the first ones; 0 for all.
        size: pixels per side of the views; those of the data by default.
        variant: latent space of a released autoencoder, where its weights do not tell it.
    """

    channels: int = 0
    size: int | None = None
    variant: Variant | None = None


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

    @functools.cached_property
    def numbers(self) -> Mapping[int, Sequence[int]]:
        """Numbers of the rings of each row."""
        found: dict[int, list[int]] = defaultdict(list)
        for number, ring in enumerate(self.rings):
            found[ring.row].append(number)
        return found


def latent_table(
    folders: StageFolders,
    dataset: ObjectDataset,
    *,
    rings: int = 1,
    options: LatentOptions = LatentOptions(),
) -> LatentTable:
    """The latents of a data set, from the cache where it has them; otherwise one process computes them.

    An interrupted call is continued by the next.

    Args:
        folders: of the run.
        dataset: the objects.
        rings: how many rings of an object, see :func:`object_rings`.
        options: how they are made.
    """
    chosen = object_rings(dataset, rings)
    folder = folders.latents / _fingerprint(folders, dataset, chosen, options)
    encoder = functools.cache(lambda: ViewEncoder.open(folders, options.variant).to(caching_device()))

    def make(start: int) -> dict[str, Tensor]:
        return _encode(encoder(), dataset, chosen[start : start + _CHUNK_RINGS], options)

    chunks = cached_tensors(folder, range(0, len(chosen), _CHUNK_RINGS), make, "latents")
    latents, poses, intrinsics = (torch.cat([chunk[name] for chunk in chunks]) for name in _TENSORS)
    size = options.size or dataset.rows[0].cameras.width
    return LatentTable(chosen, latents, Cameras(poses, intrinsics, size, size))


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
    encoder: ViewEncoder, dataset: ObjectDataset, rings: Sequence[ObjectRing], options: LatentOptions
) -> dict[str, Tensor]:
    """Latents in half precision and cameras of rings."""
    batches = [rings[start : start + _ENCODED_AT_ONCE] for start in range(0, len(rings), _ENCODED_AT_ONCE)]

    def load(number: int) -> Views:
        chosen = batches[number]
        return Views.concatenate(
            [dataset.load_views(ring.row, ring.views, size=options.size) for ring in chosen]
        )

    parts: list[tuple[Tensor, ...]] = []
    with thread_batches(load, range(len(batches)), 2) as loaded:
        for views in loaded:
            latents = encoder(views.to(caching_device()))[:, :, : options.channels or None].half().cpu()
            parts.append((latents, views.cameras.camera_to_world, views.cameras.intrinsics))
    return dict(zip(_TENSORS, map(torch.cat, zip(*parts, strict=True)), strict=True))


def _fingerprint(
    folders: StageFolders, dataset: ObjectDataset, rings: Sequence[ObjectRing], options: LatentOptions
) -> str:
    """Changes with the networks, the options, and the images and cameras of the rings."""
    networks = (folders.trained("reconstructor"), folders.trained("autoencoder"))
    digest = hashlib.sha256(b"".join(map(folder_digest, networks)))
    digest.update(str(options.channels).encode())
    # Caches of earlier versions have no word of what is as it always was.
    further = {"size": options.size, "variant": options.variant, "composition": dataset.composition}
    changed = {name: value for name, value in further.items() if value not in (None, "exact")}
    digest.update(json.dumps(changed).encode() if changed else b"")
    for ring in rings:
        poses = dataset.rows[ring.row].cameras[list(ring.views)].camera_to_world.tolist()
        digest.update(json.dumps([dataset.pixels_key(ring.row), ring.views, poses]).encode())
    return digest.hexdigest()[:16]
