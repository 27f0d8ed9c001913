"""Folders of shards, on disk or at any address that fsspec opens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from diffsplat.errors import MissingFileError, MissingPackageError, UnreachableError, one_line

SHARDS = "objects-*.parquet"
_IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp"))


@dataclass(frozen=True)
class ShardFolder:
    """A folder of shards.

    Args:
        address: a path, or an address of fsspec such as ``s3://bucket/objects`` or ``hf://datasets/me/objects``.
    """

    address: str

    @classmethod
    def at(cls, place: str | Path | ShardFolder) -> ShardFolder:
        """The folder at a path or address."""
        return place if isinstance(place, ShardFolder) else cls(str(place))

    @property
    def path(self) -> Path | None:
        """The folder's path; None for one that is not on disk."""
        return None if "://" in self.address else Path(self.address)

    def shards(self) -> tuple[Shard, ...]:
        """The shards, sorted by name.

        Raises:
            FileNotFoundError: there is none.
            ConnectionError: the address cannot be read.
        """
        path = self.path
        if path is None:
            found = [Shard(self, name, size, 0) for name, size in self._listed()]
        else:
            stats = [(shard.name, shard.stat()) for shard in path.glob(SHARDS)]
            found = [Shard(self, name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
        if not found:
            images = path is not None and any(f.suffix.lower() in _IMAGE_SUFFIXES for f in path.glob("*"))
            said = f"images but no {SHARDS}" if images else f"no {SHARDS}"
            raise MissingFileError(f"{self.address} holds {said}, expected the output of diffsplat data")
        return tuple(sorted(found, key=lambda shard: shard.name))

    def fetch(self, name: str, target: Path) -> bool:
        """Copy a file of an address to disk; False when there is none."""
        system, root = self._opened
        try:
            system.get_file(f"{root}/{name}", str(target))
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def open(self, name: str) -> Iterator[Any]:
        """A file of the folder, for pyarrow to read parts of."""
        if self.path is not None:
            yield str(self.path / name)
            return
        # Without a cache only the ranges that are asked for are transferred.
        system, root = self._opened
        with system.open(f"{root}/{name}", "rb", cache_type="none") as file:
            yield file

    def _listed(self) -> list[tuple[str, int]]:
        system, root = self._opened
        try:
            entries = system.ls(root, detail=True)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise UnreachableError(f"cannot read {self.address!r}: {one_line(error)}") from error
        files = [(str(entry["name"]).rsplit("/", 1)[-1], int(entry["size"] or 0)) for entry in entries]
        return [(name, size) for name, size in files if Path(name).match(SHARDS)]

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system of fsspec and the folder's path in it."""
        import fsspec

        try:
            system, root = fsspec.core.url_to_fs(self.address)
            return system, root.rstrip("/")
        except ImportError as error:
            raise MissingPackageError(f"cannot open {self.address!r}: {one_line(error)}") from error
        except ValueError as error:
            raise UnreachableError(f"cannot open {self.address!r}: {one_line(error)}") from error

    def __getstate__(self) -> dict[str, str]:
        return {"address": self.address}  # connections stay in their process


@dataclass(frozen=True)
class Shard:
    """One file of a folder.

    Args:
        folder: that it lies in.
        name: of the file.
        size: bytes.
        modified: nanoseconds; 0 at addresses.
    """

    folder: ShardFolder
    name: str
    size: int = 0
    modified: int = 0

    def __str__(self) -> str:
        return f"{self.folder.address}/{self.name}"
