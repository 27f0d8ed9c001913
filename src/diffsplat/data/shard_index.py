"""The index of a folder of shards: all rows without their images, in a memory-mapped Arrow file."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock
from tqdm import tqdm

from diffsplat.core import Cameras
from diffsplat.data import shard_schema
from diffsplat.data.shard_folders import Shard, ShardFolder
from diffsplat.data.shard_reading import OPTIONAL_COLUMNS, explained_damage, opened, read_columns
from diffsplat.data.shard_row import check_row
from diffsplat.io.file_access import atomic_path, make_folder
from diffsplat.io.image_decoding import IMAGE_DAMAGE
from diffsplat.io.user_cache import user_cache

if TYPE_CHECKING:
    import pyarrow

logger = logging.getLogger(__name__)

TABLE_FILE = "rows.arrow"
_ROWS_AT_ONCE = 4096
_SHARDS_WITHOUT_A_BAR = 200
_KEY = b"shards"


def open_table(folder: ShardFolder) -> pyarrow.Table:
    """All rows of a folder, in the order of its shards.

    Besides the columns of :mod:`shard_schema` but the images it has ``shard``, number of the file; ``place``, row
    in it; ``pixels``, fingerprint of the file's images; and ``geometry``, whether it has normals and depths. The file
    is made at the first call, next to the shards where they can be written to, else in the user's cache, and again
    when shards have changed.

    Raises:
        FileNotFoundError: the folder holds no shard.
        ValueError: a shard is damaged; the sentence names it and the row.
    """
    shard_schema.import_pyarrow()
    shards = folder.shards()
    key = json.dumps([[shard.name, shard.size] for shard in shards]).encode()
    newest = max(shard.modified for shard in shards)
    cached = user_cache() / "tables" / f"{hashlib.sha256(folder.address.encode()).hexdigest()[:16]}.arrow"
    places = [cached] if folder.path is None else [folder.path / TABLE_FILE, cached]
    for path in places:
        table = _read(path, key, newest)
        if table is not None:
            return table
    path = next(path for path in places if path is cached or os.access(path.parent, os.W_OK))
    make_folder(path.parent)
    with FileLock(path.with_name(f".{path.name}.lock")):
        table = _read(path, key, newest)
        if table is None and folder.path is None:
            table = _fetched(folder, path, key)
        if table is None:
            _build(shards, key, path)
            table = _mapped(path)
    return table


def listed_shards(table: pyarrow.Table, folder: ShardFolder) -> list[Shard]:
    """The shards that the column ``shard`` numbers."""
    return [Shard(folder, name, size) for name, size in json.loads(table.schema.metadata[_KEY])]


def _mapped(path: Path) -> pyarrow.Table:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def _read(path: Path, key: bytes, newest: int) -> pyarrow.Table | None:
    """The table of a file; None unless it is of these shards, newer than all of them and undamaged."""
    try:
        if path.stat().st_mtime_ns <= newest:
            return None
        table = _mapped(path)
        table.validate(full=True)
    except IMAGE_DAMAGE:
        return None
    fits = (table.schema.metadata or {}).get(_KEY) == key and table.schema.equals(_schema())
    return table if fits else None


def _fetched(folder: ShardFolder, path: Path, key: bytes) -> pyarrow.Table | None:
    """The table next to the shards at an address."""
    with atomic_path(path, force=True) as temporary:
        folder.fetch(TABLE_FILE, temporary)
    return _read(path, key, 0)


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    fields = [f for f in shard_schema.table_schema() if f.name not in shard_schema.BLOB_COLUMNS]
    added = {"shard": pa.int32(), "place": pa.int32(), "pixels": pa.string(), "geometry": pa.bool_()}
    return pa.schema([*fields, *(pa.field(name, kind) for name, kind in added.items())])


def _build(shards: Sequence[Shard], key: bytes, path: Path) -> None:
    import pyarrow as pa

    schema = _schema().with_metadata({_KEY: key})
    if len(shards) > _SHARDS_WITHOUT_A_BAR:
        logger.info("reading the rows of %d shards into %s, once", len(shards), path)
    with atomic_path(path, force=True) as temporary, pa.ipc.new_file(str(temporary), schema) as file:
        for table in _gathered(shards):
            file.write_table(table.replace_schema_metadata(schema.metadata).combine_chunks())


def _gathered(shards: Sequence[Shard]) -> Iterator[pyarrow.Table]:
    """Tables of a few thousand rows, so that few rows are in memory and one is found fast."""
    import pyarrow as pa

    waiting: list[pyarrow.Table] = []
    bar = tqdm(shards, unit="shard", desc="reading rows", disable=len(shards) <= _SHARDS_WITHOUT_A_BAR)
    for number, shard in enumerate(bar):
        waiting.append(_rows(shard, number))
        if sum(map(len, waiting)) >= _ROWS_AT_ONCE:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _rows(shard: Shard, number: int) -> pyarrow.Table:
    """The rows of a shard, checked."""
    import pyarrow as pa

    columns = [name for name in shard_schema.table_schema().names if name not in shard_schema.BLOB_COLUMNS]
    with opened(shard) as file:
        table = read_columns(shard, file, columns)
        geometry = {"normal", "depth"} <= set(file.schema_arrow.names)
        pixels = _pixels_id(shard, file)
    for name in OPTIONAL_COLUMNS:
        given = (
            table.column(name).fill_null("") if name in table.column_names else pa.array([""] * len(table))
        )
        table = table.drop_columns(name) if name in table.column_names else table
        table = table.append_column(name, given)
    _check(shard, table)
    added = {
        "shard": [number] * len(table),
        "place": list(range(len(table))),
        "pixels": [pixels] * len(table),
        "geometry": [geometry] * len(table),
    }
    for name, values in added.items():
        table = table.append_column(_schema().field(name), pa.array(values, _schema().field(name).type))
    return table.select(_schema().names)


def _pixels_id(shard: Shard, file: Any) -> str:
    """Changes with the images of a shard, not with its labels."""
    stored = (file.schema_arrow.metadata or {}).get(b"pixels", b"").decode("ascii", errors="replace")
    return stored if stored.isalnum() else shard_schema.pixels_id(read_columns(shard, file, ("rgba",)))


def _check(shard: Shard, table: pyarrow.Table) -> None:
    """Refuse rows that cannot be used: all at once, and one by one only to find the bad one.

    Raises:
        ValueError: names the shard, the row and what is wrong.
    """
    try:
        whole = _whole(table)
    except IMAGE_DAMAGE:
        whole = False
    if whole:
        return
    for place, values in enumerate(table.to_pylist()):
        with explained_damage(shard, f"row {place}"):
            check_row(values)


def _whole(table: pyarrow.Table) -> bool:
    """Whether all rows pass :func:`check_row`."""
    from pyarrow import types

    compute = shard_schema.import_compute()
    for column in table.columns:
        lists = types.is_list(column.type)
        if column.null_count or (lists and compute.list_flatten(column).null_count):
            return False
    views = compute.list_value_length(table["ring"])
    numbers = {"azimuths": 1, "elevations": 1, "camera_to_world": 16, "intrinsics": 4}
    for name, times in numbers.items():
        lengths = compute.list_value_length(table[name])
        if not compute.all(compute.equal(lengths, compute.multiply(views, times))).as_py():
            return False
    poses, intrinsics = (
        torch.tensor(compute.list_flatten(table[name]).to_numpy())
        for name in ("camera_to_world", "intrinsics")
    )
    Cameras(poses.reshape(-1, 4, 4), intrinsics.reshape(-1, 4), width=1, height=1)
    least = compute.min(compute.list_value_length(table["captions"])).as_py()
    return least > 0 and compute.min(table["size"]).as_py() > 0
