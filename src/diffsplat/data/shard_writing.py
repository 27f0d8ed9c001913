"""Filling a folder of shards: many processes, resumable, with a progress bar and a report of what was broken."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from tqdm import tqdm

from diffsplat.core.stable_hash import stable_seed
from diffsplat.data import shard_schema
from diffsplat.data.parallel_map import Failure, local_results, ray_results
from diffsplat.data.shard_folders import SHARDS, ShardFolder
from diffsplat.data.shard_index import open_table
from diffsplat.errors import InvalidInputError, require
from diffsplat.io.file_access import make_folder

SHARD_OBJECTS = 40
Row = dict[str, Any]


class Identified(Protocol):
    """An object to make rows of."""

    @property
    def object_id(self) -> str:
        """Unique, the same in every run."""
        ...


Item = TypeVar("Item", bound=Identified)


@dataclass(frozen=True)
class ObjectListing(Generic[Item]):
    """Objects to make rows of, and the names of those that are left out."""

    objects: tuple[Item, ...]
    left_out: tuple[str, ...] = ()


@dataclass
class ShardReport:
    """What became of the objects of a source.

    Args:
        rendered: objects written now. rows: their rows. resumed: objects that were there already.
        broken: objects that gave no row, each with the reason.
        dropped_views: views left out of objects that were written, each with the reason.
        losses: objects that were written without something that their file asks for, each with what.
        left_out: objects that were never tried.
    """

    rendered: int = 0
    rows: int = 0
    resumed: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)
    dropped_views: list[tuple[str, str]] = field(default_factory=list)
    losses: list[tuple[str, str]] = field(default_factory=list)
    left_out: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether every object that was tried is broken, and none was there before."""
        return bool(self.broken) and not (self.rendered or self.resumed)


@dataclass(frozen=True)
class Finished:
    """The rows of an object, and what of it was dropped or lost."""

    rows: list[Row]
    dropped_views: tuple[tuple[str, str], ...] = ()
    losses: tuple[tuple[str, str], ...] = ()


def fill_shards(
    listing: ObjectListing[Item],
    work: Callable[[Item], Finished],
    out: Path,
    *,
    size: int,
    processes: int = 0,
    ray: str | None = None,
) -> ShardReport:
    """Make rows of every object that ``out`` does not hold yet, in an order mixed by a hash.

    Shards appear whole or not at all; after an interruption the same call goes on with what is missing. They are the
    same for any number of processes and on a cluster. An object that cannot be used, whatever the reason, ends nothing.

    Args:
        listing: the objects.
        work: makes the rows of an object; what it raises is the reason why the object is broken. With several
            processes it must be picklable.
        out: folder of the shards, made when it is missing.
        size: pixels per side, at least 8.
        processes: how many at once, 0 for one per core.
        ray: address of a Ray cluster that does the work, see :func:`~diffsplat.data.parallel_map.ray_results`.

    Raises:
        ValueError: an option is out of range, or ``out`` is a file.
    """
    require(size >= 8, "size", size, "at least 8")
    require(processes >= 0, "processes", processes, "at least 0")
    if out.exists() and not out.is_dir():
        raise InvalidInputError(f"{out} is a file, expected a folder to write to")
    make_folder(out)
    done = finished_objects(out)
    todo = [item for item in listing.objects if item.object_id not in done]
    todo.sort(key=lambda item: stable_seed(item.object_id))
    report = ShardReport(resumed=len(listing.objects) - len(todo), left_out=listing.left_out)
    results = local_results(work, todo, processes) if ray is None else ray_results(work, todo, ray)
    _write_results(todo, results, report, out)
    if report.rendered or report.resumed:
        open_table(ShardFolder.at(out))  # so that no training has to make it first
    return report


def _write_results(
    todo: Sequence[Item], results: Iterable[Finished | Failure], report: ShardReport, out: Path
) -> None:
    """Write the rows of ``todo`` as they arrive, and count in ``report`` what became of each object."""
    writer = _ShardWriter(out)
    try:
        bar = tqdm(results, total=len(todo), unit="object")
        for item, result in zip(todo, bar, strict=True):
            if isinstance(result, Failure):
                report.broken.append((item.object_id, result.reason))
                continue
            report.rendered += 1
            report.rows += len(result.rows)
            report.dropped_views += result.dropped_views
            report.losses += result.losses
            for object_id, text in result.losses:
                bar.write(f"{object_id}: {text}", file=sys.stderr)
            writer.add(result.rows)
    finally:
        writer.flush()


def finished_objects(out: Path) -> set[str]:
    """Identities of the objects in the shards of ``out``."""
    shard_schema.import_pyarrow()
    from pyarrow import parquet

    done: set[str] = set()
    for path in sorted(out.glob(SHARDS)):
        done.update(parquet.read_table(path, columns=["object_id"]).column(0).to_pylist())
    return done


class _ShardWriter:
    def __init__(self, out: Path) -> None:
        self._out = out
        numbers = [int(p.stem.split("-")[1]) for p in out.glob(SHARDS)]
        self._next = max(numbers, default=-1) + 1
        self._rows: list[Row] = []
        self._objects = 0

    def add(self, rows: list[Row]) -> None:
        self._rows += rows
        self._objects += 1
        if self._objects >= SHARD_OBJECTS:
            self.flush()

    def flush(self) -> None:
        if not self._rows:
            return
        pa = shard_schema.import_pyarrow()
        table = pa.Table.from_pylist(self._rows, schema=shard_schema.table_schema())
        shard_schema.write_shard(table, self._out / f"objects-{self._next:05d}.parquet")
        self._next += 1
        self._rows, self._objects = [], 0
