"""Filling a folder of shards: many processes, resumable, with a progress bar and a report of what was broken."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from tqdm import tqdm

from diffsplat.core.stable_hash import stable_seed
from diffsplat.data import shard_schema
from diffsplat.errors import InvalidInputError
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


@dataclass(frozen=True)
class Finished:
    """The rows of an object, and what of it was dropped or lost."""

    rows: list[Row]
    dropped_views: tuple[tuple[str, str], ...] = ()
    losses: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Broken:
    """An object that gave no row."""

    object_id: str
    reason: str


def fill_shards(
    listing: ObjectListing[Item],
    work: Callable[[Item], Finished],
    out: Path,
    *,
    size: int,
    processes: int = 0,
    progress: bool = True,
) -> ShardReport:
    """Make rows of every object that ``out`` does not hold yet, in an order mixed by a hash.

    Shards appear whole or not at all; after an interruption the same call goes on with what is missing.

    Args:
        listing: the objects.
        work: makes the rows of an object; a ValueError or OSError is the reason why it is broken. With several
            processes it must be picklable.
        out: folder of the shards, made when it is missing.
        size: pixels per side, at least 8.
        processes: how many at once, 0 for one per core.
        progress: show a bar.

    Raises:
        ValueError: an option is out of range, ``out`` is a file, or a process was killed.
    """
    if size < 8 or processes < 0:
        raise InvalidInputError(f"size {size}, processes {processes}: expected at least 8 and 0")
    if out.exists() and not out.is_dir():
        raise InvalidInputError(f"{out} is a file, expected a folder to write to")
    make_folder(out)
    done = finished_objects(out)
    todo = [item for item in listing.objects if item.object_id not in done]
    todo.sort(key=lambda item: stable_seed(item.object_id))
    report = ShardReport(resumed=len(listing.objects) - len(todo), left_out=listing.left_out)
    writer = _ShardWriter(out)
    jobs = [_Job(item, work) for item in todo]
    try:
        bar = tqdm(_results(jobs, processes), total=len(jobs), unit="object", disable=not progress)
        for result in bar:
            if isinstance(result, Broken):
                report.broken.append((result.object_id, result.reason))
                continue
            report.rendered += 1
            report.rows += len(result.rows)
            report.dropped_views += result.dropped_views
            report.losses += result.losses
            for object_id, text in result.losses if progress else ():
                bar.write(f"{object_id}: {text}", file=sys.stderr)
            writer.add(result.rows)
    finally:
        writer.flush()
    return report


def finished_objects(out: Path) -> set[str]:
    """Identities of the objects in the shards of ``out``."""
    shard_schema.import_pyarrow()
    from pyarrow import parquet

    done: set[str] = set()
    for path in sorted(out.glob("objects-*.parquet")):
        done.update(parquet.read_table(path, columns=["object_id"]).column(0).to_pylist())
    return done


@dataclass(frozen=True)
class _Job(Generic[Item]):
    item: Item
    work: Callable[[Item], Finished]

    def run(self) -> Finished | Broken:
        try:
            return self.work(self.item)
        except (ValueError, OSError, MemoryError) as error:
            return Broken(self.item.object_id, str(error))


class _ShardWriter:
    def __init__(self, out: Path) -> None:
        self._out = out
        numbers = [int(p.stem.split("-")[1]) for p in out.glob("objects-*.parquet")]
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


def _results(jobs: list[_Job[Any]], processes: int) -> Iterator[Finished | Broken]:
    workers = processes or os.cpu_count() or 1
    if workers == 1 or len(jobs) < 4:
        yield from map(_Job.run, jobs)
        return
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        yield from executor.map(_Job.run, jobs)
    except BrokenProcessPool as error:
        raise InvalidInputError(
            "a rendering process was killed, probably for lack of memory; run again with fewer processes"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Ctrl-C reaches all processes, and only the first one answers it; each worker keeps to one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
