"""Pixels of rendered shards, decoded on demand or once for all into memory-mapped files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from diffsplat.data import shard_schema
from diffsplat.data.shard_reading import decode_pixels, explained_damage, read_columns

CACHE_FOLDER = "decoded"


@dataclass(frozen=True)
class Pixels:
    """Views as stored: ``rgba [V, H, W, 4]``, ``normal [V, H, W, 3]`` bytes, ``depth [V, H, W]`` uint16."""

    rgba: NDArray[np.uint8]
    normal: NDArray[np.uint8]
    depth: NDArray[np.uint16]


class PixelStore(Protocol):
    """Where pixels come from."""

    def read(self, row: int, views: list[int]) -> Pixels:
        """The pixels of some views of a row of the shard."""
        ...


class EncodedShard:
    """Keeps the encoded bytes of a shard in memory and decodes them at every reading."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._table = read_columns(path, ("size", *shard_schema.BLOB_COLUMNS))

    def read(self, row: int, views: list[int]) -> Pixels:
        """The pixels of some views of a row of the shard."""
        with explained_damage(self._path, f"row {row}"):
            size = self._table.column("size")[row].as_py()
            decoded = {
                name: np.stack(
                    [decode_pixels(self._table.column(name)[row][v].as_py(), name, size) for v in views]
                )
                for name in shard_schema.BLOB_COLUMNS
            }
        return Pixels(**decoded)


class DecodedShard:
    """Memory-mapped arrays of a shard, decoded once into a folder next to it; processes share their pages."""

    def __init__(self, path: Path) -> None:
        folder = path.parent / CACHE_FOLDER / pixels_id(path)
        if not folder.is_dir():
            with explained_damage(path):
                _decode_shard(path, folder)
        self._first = np.load(folder / "first.npy")
        self._slots = np.load(folder / "slots.npy")
        self._rgba = np.load(folder / "rgba.npy", mmap_mode="r")
        self._normal = np.load(folder / "normal.npy", mmap_mode="r")
        self._depth = np.load(folder / "depth.npy", mmap_mode="r")

    def read(self, row: int, views: list[int]) -> Pixels:
        """The pixels of some views of a row of the shard."""
        places = self._first[row] + np.asarray(views)
        slots = self._slots[places]
        return Pixels(self._rgba[places], self._normal[slots], self._depth[slots])


def pixels_id(path: Path) -> str:
    """Changes with the images of a shard, not with its labels."""
    shard_schema.import_pyarrow()
    from pyarrow import parquet

    with explained_damage(path):
        metadata = parquet.read_schema(path).metadata or {}
    identity = metadata.get(b"pixels", b"").decode("ascii", errors="replace")
    # It names a folder.
    return identity if identity.isalnum() else shard_schema.pixels_id(read_columns(path, ("rgba",)))


def _decode_shard(path: Path, folder: Path) -> None:
    """Write the arrays of a shard: every colour image, each geometry once however many rows show it."""
    table = read_columns(path, ("size", *shard_schema.BLOB_COLUMNS))
    size = table.column("size")[0].as_py()
    counts = [len(cell) for cell in table.column("rgba")]
    colors = [blob.as_py() for cell in table.column("rgba") for blob in cell]
    normals = [blob.as_py() for cell in table.column("normal") for blob in cell]
    depths = [blob.as_py() for cell in table.column("depth") for blob in cell]
    known: dict[tuple[bytes, bytes], int] = {}
    slots = np.array(
        [known.setdefault(key, len(known)) for key in zip(normals, depths, strict=True)], dtype=np.int32
    )
    folder.parent.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        np.save(scratch / "first.npy", np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64))
        np.save(scratch / "slots.npy", slots)
        for name, blobs in (
            ("rgba", colors),
            ("normal", [n for n, _ in known]),
            ("depth", [d for _, d in known]),
        ):
            _save_decoded(scratch / f"{name}.npy", blobs, partial(decode_pixels, column=name, size=size))
        _put_in_place(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _put_in_place(scratch: Path, folder: Path) -> None:
    try:
        scratch.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster, with the same content
            raise


def _save_decoded(path: Path, blobs: list[bytes], decode: Callable[[bytes], NDArray[Any]]) -> None:
    first = decode(blobs[0])
    out = np.lib.format.open_memmap(path, mode="w+", dtype=first.dtype, shape=(len(blobs), *first.shape))
    for index, blob in enumerate(blobs):
        out[index] = decode(blob)
    out.flush()
