"""Rows of remote shards, cached on local disk up to a limit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffsplat.core.stable_hash import stable_hash
from diffsplat.data.shard_folders import Shard
from diffsplat.io.file_access import atomic_path, make_folder
from diffsplat.io.user_cache import user_cache

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class RowCache:
    """Encoded images of the rows of some shards.

    A hash of their names says which shards are kept, as many as fit: so every process decides alike without asking
    another, and nothing is ever thrown out. In shuffled epochs a cache for a tenth of the data serves a tenth of the
    reads, which no other choice betters.

    Args:
        shards: addresses of the shards whose rows are kept.
    """

    shards: frozenset[str]

    @classmethod
    def within(cls, shards: Sequence[Shard], gigabytes: float) -> RowCache:
        """A cache of as many of the shards that are not on disk as fit."""
        left = gigabytes * 1e9
        kept: set[str] = set()
        far = (shard for shard in shards if shard.folder.path is None)
        for shard in sorted(far, key=lambda shard: stable_hash(str(shard))):
            left -= shard.size
            if left < 0:
                break
            kept.add(str(shard))
        return cls(frozenset(kept))

    def row(self, shard: Shard, place: int, read: Callable[[], pyarrow.Table]) -> pyarrow.Table:
        """A row of a shard: from disk, or from ``read`` and then kept where the shard is one of those kept."""
        if str(shard) not in self.shards:
            return read()
        import pyarrow as pa

        path = _folder(shard) / f"{place}.arrow"
        try:
            with pa.memory_map(str(path)) as source:
                return pa.ipc.open_file(source).read_all()
        except (OSError, pa.ArrowInvalid):
            table = read()
        make_folder(path.parent)
        with (
            atomic_path(path, force=True) as temporary,
            pa.ipc.new_file(str(temporary), table.schema) as file,
        ):
            file.write_table(table)
        return table


def _folder(shard: Shard) -> Path:
    digest = hashlib.sha256(f"{shard} {shard.size}".encode()).hexdigest()[:16]
    return user_cache() / "rows" / digest
