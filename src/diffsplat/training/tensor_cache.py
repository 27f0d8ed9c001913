"""Tensors that are computed once and kept on disk in chunks, and keys of the networks that they depend on."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from diffsplat.io.file_access import atomic_path, make_folder


def cached_tensors(
    folder: Path, starts: Sequence[int], make: Callable[[int], dict[str, Tensor]], name: str
) -> list[dict[str, Tensor]]:
    """The tensors of chunks, from the cache where it has them; otherwise one process computes them.

    An interrupted call is continued by the next.

    Args:
        folder: of the chunks; its name changes with what they depend on.
        starts: number of the first object of each chunk.
        make: the tensors of the chunk that starts with an object.
        name: of the contents, for the progress bar.
    """
    paths = {start: make_folder(folder) / f"{start:06d}.safetensors" for start in starts}
    with FileLock(folder.with_suffix(".lock")):
        missing = [start for start, path in paths.items() if not path.is_file()]
        for start in tqdm(missing, unit="chunk", desc=name, disable=not missing):
            with atomic_path(paths[start], force=True) as temporary:
                save_file(make(start), temporary)
    return [load_file(path) for path in paths.values()]


def caching_device() -> torch.device:
    """Where caches are computed: on the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def folder_digest(folder: Path) -> bytes:
    """Changes with the weights and settings in a network's folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix in (".safetensors", ".json"):
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
    return digest.digest()
