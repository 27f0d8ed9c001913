"""The rendered objects that judges are fitted on, and a store of their image features."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.data.shard_folders import SHARDS
from diffsplat.errors import MissingFileError
from diffsplat.evaluation.efficientnet import EfficientNetLite0
from diffsplat.evaluation.noun_judge import image_features
from diffsplat.io.file_access import atomic_path, make_folder


def open_objects(
    data: Path, *, split: Literal["train", "test", "all"], variants: bool = True
) -> ObjectDataset:
    """The rendered objects in ``data`` and in the folders right below it.

    Raises:
        FileNotFoundError: there is no such folder, or no shard in it.
    """
    folders = sorted({shard.parent for shard in find_shards(data)})
    return ObjectDataset(folders, split=split, variants=variants)


def find_shards(data: Path) -> list[Path]:
    """Shards in ``data`` and in the folders right below it, sorted.

    Raises:
        FileNotFoundError: there is no such folder, or no shard in it.
    """
    if not data.is_dir():
        raise MissingFileError(f"no such folder of rendered objects: {data}")
    shards = sorted({shard for pattern in (SHARDS, f"*/{SHARDS}") for shard in data.glob(pattern)})
    if not shards:
        raise MissingFileError(f"{data} holds no {SHARDS}, expected the output of diffsplat data")
    return shards


class FeatureStore:
    """Features by the content of the image, kept in one file so that none is computed twice.

    Args:
        network: gives the features.
        path: safetensors file to read first and to write in :meth:`save`; None keeps them in memory.
    """

    def __init__(self, network: EfficientNetLite0, path: Path | None = None) -> None:
        self._network = network
        self._path = path
        self._known: dict[str, Tensor] = load_file(path) if path is not None and path.is_file() else {}
        self._grown = False

    def features(self, images: Sequence[Tensor]) -> Tensor:
        """``[N, 1280]`` float32 features of ``[3, H, W]`` images (sRGB 0..1 on white)."""
        keys = [_content_key(image) for image in images]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in self._known}
        if new:
            computed = image_features(self._network, torch.stack(list(new.values())))
            self._known.update(zip(new, computed.half().unbind(), strict=True))
            self._grown = True
        return torch.stack([self._known[key] for key in keys]).float()

    def save(self) -> None:
        """Write the file when there is something new."""
        if self._path is not None and self._grown:
            make_folder(self._path.parent)
            with atomic_path(self._path, force=True) as temporary:
                save_file({key: tensor.contiguous() for key, tensor in self._known.items()}, temporary)
            self._grown = False


def _content_key(image: Tensor) -> str:
    pixels = (image * 255).round().to(torch.uint8).contiguous()
    return hashlib.sha256(repr(tuple(pixels.shape)).encode() + pixels.numpy().tobytes()).hexdigest()
