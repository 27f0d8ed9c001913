"""Reading parts of shards of unknown origin, with one sentence for any damage."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffsplat.data import shard_schema
from diffsplat.data.shard_folders import Shard
from diffsplat.errors import InvalidInputError, explained_errors
from diffsplat.io.image_decoding import IMAGE_DAMAGE

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import parquet

OPTIONAL_COLUMNS = ("license_basis",)
"""Columns that older shards lack, and that may be empty."""
_CHANNELS = {"rgba": "RGBA", "normal": "RGB"}


@dataclass(frozen=True)
class Pixels:
    """Views as stored: ``rgba [V, H, W, 4]``, ``normal [V, H, W, 3]`` bytes, ``depth [V, H, W]`` uint16."""

    rgba: NDArray[np.uint8]
    normal: NDArray[np.uint8]
    depth: NDArray[np.uint16]


def explained_damage(shard: Shard, where: str = "") -> AbstractContextManager[None]:
    """Turn what broken content raises into a ``ValueError`` that names the shard and a place such as ``row 3``."""
    failure = f"{str(shard)!r}{f', {where},' if where else ''} is not a readable shard"
    return explained_errors(failure, *IMAGE_DAMAGE, shard_schema.import_pyarrow().ArrowException)


@contextmanager
def opened(shard: Shard) -> Iterator[parquet.ParquetFile]:
    """A shard to read parts of; only its footer is read now."""
    shard_schema.import_pyarrow()
    from pyarrow import parquet

    with shard.folder.open(shard.name) as source, explained_damage(shard):
        local = isinstance(source, str)
        with parquet.ParquetFile(source, memory_map=local, pre_buffer=not local) as file:
            yield file


def read_columns(shard: Shard, file: parquet.ParquetFile, names: Sequence[str]) -> pyarrow.Table:
    """Columns of a shard, of the types of its schema; those that older shards lack are left out.

    Raises:
        ValueError: the shard lacks a column, is damaged, or has columns of other types.
    """
    from pyarrow import schema

    present = set(file.schema_arrow.names)
    missing = [name for name in names if name not in present and name not in OPTIONAL_COLUMNS]
    if missing:
        raise InvalidInputError(f"{str(shard)!r} is not a readable shard: it lacks {', '.join(missing)}")
    wanted = [name for name in names if name in present]
    with explained_damage(shard):
        table = file.read(columns=wanted, use_threads=False).select(wanted)
        expected = shard_schema.table_schema()
        table = table.cast(schema([expected.field(name) for name in wanted], metadata=table.schema.metadata))
        table.validate(full=True)
        return table


def read_images(shard: Shard, place: int) -> pyarrow.Table:
    """The encoded images of a row; no other row is read where the shard has a row group for each.

    Raises:
        ValueError: the shard is damaged, or has no such row.
    """
    with opened(shard) as file, explained_damage(shard, f"row {place}"):
        group, first = _row_group(file, place)
        row = file.read_row_group(group, columns=list(shard_schema.BLOB_COLUMNS), use_threads=False)
        return row.slice(place - first, 1)


def decode_row(
    images: pyarrow.Table,
    shard: Shard,
    place: int,
    size: int,
    views: Sequence[int],
    columns: Sequence[str],
) -> dict[str, NDArray[Any]]:
    """Some views of a row by their columns, see :class:`Pixels`, from its images by :func:`read_images`.

    Raises:
        ValueError: the row is damaged.
    """
    with explained_damage(shard, f"row {place}"):
        cells = {name: images.column(name)[0] for name in columns}
        return {
            name: np.stack([decode_pixels(cell[view].as_py(), name, size) for view in views])
            for name, cell in cells.items()
        }


def _row_group(file: parquet.ParquetFile, place: int) -> tuple[int, int]:
    """The row group that a row lies in, and its first row."""
    first = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if place < first + rows:
            return group, first
        first += rows
    raise IndexError(f"it has {first} rows")


def decode_pixels(data: bytes, column: str, size: int) -> NDArray[Any]:
    """An image of a column: ``[S, S, 4]`` or ``[S, S, 3]`` bytes, or the steps ``[S, S]`` of a depth.

    Raises:
        ValueError: it has another size or kind; nothing is decoded then.
        OSError, SyntaxError: it is broken.
    """
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        mode = _CHANNELS.get(column)
        fits = image.mode == mode if mode else image.mode.startswith("I")
        if image.size != (size, size) or not fits:
            width, height = image.size
            raise ValueError(
                f"its {column} has {width} x {height} pixels {image.mode}, expected {size} x {size}"
            )
        return np.asarray(image) if mode else np.asarray(image).astype(np.uint16)
