"""Latents of a data set seen from the front, computed once and kept on disk."""

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, cast

import numpy as np
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from diffsplat.core import DEFAULT_RADIUS, Cameras
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.io.file_access import atomic_path, make_folder
from diffsplat.training.batch_tensors import to_device
from diffsplat.training.grid_cache import caching_device, folder_digest, grid_table
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.stage import SourceConfig
from diffsplat.training.trained_networks import TrainableAutoencoder, open_autoencoder
from diffsplat.training.view_batches import epoch_indices, held_out, training_objects

logger = logging.getLogger(__name__)

_ENCODED_AT_ONCE = 8


@dataclass(frozen=True)
class LatentBatch:
    """Cached latents of objects, for a denoiser.

    Args:
        latents: ``[B, V, C, h, w]`` normalised latents.
        cameras: ``[B, V]`` cameras that the latents' views were taken with.
        prompt: one caption an object.
    """

    latents: Tensor
    cameras: Cameras
    prompt: tuple[str, ...]


@dataclass(frozen=True)
class LatentSourceConfig(SourceConfig):
    """What a batch of latents is made of.

    Args:
        batch_size: objects of a batch.
        evaluation_objects: held-out objects that the loss is measured on.
        seed: of the order and of the captions.
    """

    batch_size: int = 16
    evaluation_objects: int = 64
    seed: int = 0

    def build(self, folders: StageFolders) -> "LatentSource":
        """The source of latents."""
        return LatentSource(self, folders)


@dataclass(frozen=True)
class LatentTable:
    """Latents of every object of a split, seen from the front.

    Args:
        latents: ``[N, V, C, h, w]`` half precision.
        cameras: ``[N, V]`` of the views.
    """

    latents: Tensor
    cameras: Cameras

    def save(self, path: Path) -> None:
        """Write to one safetensors file, complete or not at all."""
        make_folder(path.parent)
        tensors = {
            "latents": self.latents,
            "camera_to_world": self.cameras.camera_to_world.contiguous(),
            "intrinsics": self.cameras.intrinsics.contiguous(),
        }
        with atomic_path(path, force=True) as temporary:
            save_file(tensors, temporary, metadata={"image_size": str(self.cameras.width)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote."""
        with safe_open(path, framework="pt") as file:
            size = int(file.metadata()["image_size"])
        tensors = load_file(path)
        cameras = Cameras(tensors["camera_to_world"], tensors["intrinsics"], size, size)
        return cls(tensors["latents"], cameras)


class LatentSource:
    """Batches of latents; computed at the first use, read from the cache afterwards."""

    def __init__(self, config: LatentSourceConfig, folders: StageFolders) -> None:
        self.config = config
        self._train = training_objects(folders)
        self._test = held_out(folders)
        self._tables = {
            name: latent_table(folders, dataset, name)
            for name, dataset in {"train": self._train, "test": self._test}.items()
        }

    def batch(self, step: int) -> LatentBatch:
        """Objects in shuffled epochs, each with a random one of its captions."""
        size = self.config.batch_size
        indices = epoch_indices(len(self._train), range(step * size, (step + 1) * size), self.config.seed)
        random = np.random.default_rng([self.config.seed, step])
        return self._gather(self._train, self._tables["train"], indices, random)

    def evaluation(self) -> list[LatentBatch]:
        """Held-out objects, spread over the table, always with the same captions."""
        total = len(self._test)
        count = min(self.config.evaluation_objects, total)
        chosen = [int(index) for index in np.linspace(0, total - 1, count)]
        size = self.config.batch_size
        parts = [chosen[start : start + size] for start in range(0, count, size)]
        table = self._tables["test"]
        return [self._gather(self._test, table, part, np.random.default_rng(0)) for part in parts]

    def _gather(
        self, dataset: ObjectDataset, table: LatentTable, indices: list[int], random: np.random.Generator
    ) -> LatentBatch:
        captions = tuple(str(random.choice(dataset.rows[index].captions)) for index in indices)
        return LatentBatch(table.latents[indices].float(), table.cameras[indices], captions)


def latent_table(folders: StageFolders, dataset: ObjectDataset, name: str) -> LatentTable:
    """The latents of a data set, from the cache where it has them; otherwise one process computes them."""
    path = folders.latents / f"{name}-{_fingerprint(folders, dataset)}.safetensors"
    make_folder(path.parent)
    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            logger.info("encoding %d objects into %s", len(dataset), path)
            _encode(folders, dataset).save(path)
    return LatentTable.load(path)


def _encode(folders: StageFolders, dataset: ObjectDataset) -> LatentTable:
    device = caching_device()
    autoencoder = cast(nn.Module, open_autoencoder(folders.trained("autoencoder"))).to(device)
    grids = grid_table(folders.trained("reconstructor"), dataset, folders.grids)
    latents: list[Tensor] = []
    with torch.no_grad():
        for batch in tqdm(grids.batches(_ENCODED_AT_ONCE), unit="batch", desc="latents"):
            encoded = cast(TrainableAutoencoder, autoencoder).encode(to_device(batch, device))
            latents.append(encoded.half().cpu())
    return LatentTable(torch.cat(latents), _cameras(dataset))


def _cameras(dataset: ObjectDataset) -> Cameras:
    """``[N, V]`` cameras of the views that the grids of :func:`grid_table` were made from."""
    cameras = [row.cameras[row.ring_views(0)].relative_to_first(DEFAULT_RADIUS) for row in dataset.rows]
    first = cameras[0]
    return replace(
        first,
        camera_to_world=torch.stack([one.camera_to_world for one in cameras]),
        intrinsics=torch.stack([one.intrinsics for one in cameras]),
    )


def _fingerprint(folders: StageFolders, dataset: ObjectDataset) -> str:
    """Changes with the networks, and with the images and cameras of the data set."""
    networks = (folders.trained("reconstructor"), folders.trained("autoencoder"))
    digest = hashlib.sha256(b"".join(map(folder_digest, networks)))
    for index, row in enumerate(dataset.rows):
        views = row.ring_views(0)
        place = [dataset.pixels_key(index), views, row.cameras[views].camera_to_world.tolist()]
        digest.update(json.dumps(place).encode())
    return digest.hexdigest()[:16]
