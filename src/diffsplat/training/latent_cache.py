"""Latents and text embeddings of a data set, computed once and kept on disk."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from diffsplat.core import Cameras
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.geometry import ring_cameras
from diffsplat.io.file_access import atomic_path, make_folder
from diffsplat.io.json_files import read_json
from diffsplat.models import ComponentAutoencoder
from diffsplat.models.mini_denoiser import denoiser_rays
from diffsplat.models.text.quantized_sentence_encoder import TextEncoder
from diffsplat.training.batch_tensors import to_device
from diffsplat.training.grid_cache import caching_device, folder_digest, grid_table
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.stage import SourceConfig
from diffsplat.training.view_batches import epoch_indices, held_out

logger = logging.getLogger(__name__)

_ENCODED_AT_ONCE = 8
_EMBEDDED_AT_ONCE = 64


@dataclass(frozen=True)
class LatentBatch:
    """What the diffusion stage learns from.

    Args:
        latents: ``[B, V, C, h, w]`` normalised latents.
        tokens: ``[B, T, D]`` text tokens of one caption an object.
        mask: ``[B, T]`` True where a token counts.
        unconditional_tokens: ``[T, D]`` tokens of the empty prompt.
        unconditional_mask: ``[T]``.
        cameras: ``[V]`` cameras of the latents, the same for every object.
    """

    latents: Tensor
    tokens: Tensor
    mask: Tensor
    unconditional_tokens: Tensor
    unconditional_mask: Tensor
    cameras: Cameras

    def rays(self, latent_size: int, count: int) -> Tensor:
        """``[count, V, 6, latent_size, latent_size]`` rays of the cameras that all objects share, computed once."""
        rays = denoiser_rays(self.cameras.for_objects(1), latent_size)
        return rays.expand(count, -1, -1, -1, -1)


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
    """Latents of every object of a split, with its captions as rows of one table of embeddings.

    Args:
        latents: ``[N, V, C, h, w]`` half precision.
        captions: for each object the rows of ``tokens`` that describe it.
        tokens: ``[M, T, D]`` half precision; row 0 is the empty prompt.
        mask: ``[M, T]`` bool.
    """

    latents: Tensor
    captions: tuple[tuple[int, ...], ...]
    tokens: Tensor
    mask: Tensor

    def save(self, path: Path) -> None:
        """Write to one safetensors file, complete or not at all."""
        make_folder(path.parent)
        tensors = {"latents": self.latents, "tokens": self.tokens, "mask": self.mask}
        with atomic_path(path, force=True) as temporary:
            save_file(tensors, temporary, metadata={"captions": json.dumps(self.captions)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote."""
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            captions = json.loads(file.metadata()["captions"])
        tensors = load_file(path)
        return cls(captions=tuple(tuple(rows) for rows in captions), **tensors)


class LatentSource:
    """Batches of latents; computed at the first use, read from the cache afterwards."""

    def __init__(self, config: LatentSourceConfig, folders: StageFolders) -> None:
        self.config = config
        self._train = latent_table(folders, ObjectDataset(folders.data, split="train"), "train")
        self._test = latent_table(folders, held_out(folders.data), "test")
        autoencoder = read_json(folders.trained("autoencoder") / "config.json")
        self._cameras = ring_cameras(size=autoencoder["image_size"])

    def batch(self, step: int) -> LatentBatch:
        """Objects in shuffled epochs, each with a random one of its captions."""
        size = self.config.batch_size
        positions = range(step * size, (step + 1) * size)
        indices = epoch_indices(len(self._train.captions), positions, self.config.seed)
        return self._gather(self._train, indices, np.random.default_rng([self.config.seed, step]))

    def evaluation(self) -> list[LatentBatch]:
        """Held-out objects, spread over the table, always with the same captions."""
        total = len(self._test.captions)
        count = min(self.config.evaluation_objects, total)
        chosen = [int(index) for index in np.linspace(0, total - 1, count)]
        size = self.config.batch_size
        parts = [chosen[start : start + size] for start in range(0, count, size)]
        return [self._gather(self._test, part, np.random.default_rng(0)) for part in parts]

    def _gather(self, table: LatentTable, indices: Sequence[int], random: np.random.Generator) -> LatentBatch:
        rows = [int(random.choice(table.captions[index])) for index in indices]
        return LatentBatch(
            latents=table.latents[list(indices)].float(),
            tokens=table.tokens[rows].float(),
            mask=table.mask[rows],
            unconditional_tokens=table.tokens[0].float(),
            unconditional_mask=table.mask[0],
            cameras=self._cameras,
        )


def latent_table(folders: StageFolders, dataset: ObjectDataset, name: str) -> LatentTable:
    """The latents and captions of a data set, from the cache where it has them."""
    path = folders.latents / f"{name}-{_fingerprint(folders, dataset)}.safetensors"
    if path.is_file():
        return LatentTable.load(path)
    logger.info("encoding %d objects into %s", len(dataset), path)
    table = _encode(folders, dataset)
    table.save(path)
    return table


def _encode(folders: StageFolders, dataset: ObjectDataset) -> LatentTable:
    device = caching_device()
    autoencoder = ComponentAutoencoder.from_pretrained(folders.trained("autoencoder")).to(device)
    grids = grid_table(folders.trained("reconstructor"), dataset, folders.grids)
    latents: list[Tensor] = []
    with torch.no_grad():
        for batch in tqdm(grids.batches(_ENCODED_AT_ONCE), unit="batch", desc="latents"):
            latents.append(autoencoder.encode(to_device(batch, device)).half().cpu())
    texts = ["", *sorted({caption for row in dataset.rows for caption in row.captions})]
    numbers = {text: number for number, text in enumerate(texts)}
    captions = tuple(tuple(numbers[caption] for caption in row.captions) for row in dataset.rows)
    tokens, mask = _embed(folders.text_encoder, texts)
    return LatentTable(torch.cat(latents), captions, tokens, mask)


def _embed(folder: Path, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Tokens in half precision and mask of many texts, cut to the longest of them."""
    encoder = TextEncoder.from_pretrained(folder)
    # Texts of one length together: a batch costs as much as its longest.
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    tokens: list[Tensor] = []
    masks: list[Tensor] = []
    with torch.no_grad():
        for start in tqdm(range(0, len(order), _EMBEDDED_AT_ONCE), unit="batch", desc="captions"):
            embedding = encoder([texts[index] for index in order[start : start + _EMBEDDED_AT_ONCE]])
            tokens.append(embedding.tokens.half())
            masks.append(embedding.mask)
    back = torch.tensor(order).argsort()
    mask = torch.cat(masks)[back]
    longest = int(mask.sum(dim=1).max())
    return torch.cat(tokens)[back, :longest].contiguous(), mask[:, :longest].contiguous()


def _fingerprint(folders: StageFolders, dataset: ObjectDataset) -> str:
    """Changes with the networks and with the objects and captions of the data set."""
    networks = (folders.trained("reconstructor"), folders.trained("autoencoder"), folders.text_encoder)
    digest = hashlib.sha256(b"".join(map(folder_digest, networks)))
    for index, row in enumerate(dataset.rows):
        digest.update(json.dumps([dataset.pixels_key(index), row.captions]).encode())
    return digest.hexdigest()[:16]
