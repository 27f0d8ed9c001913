"""Reading shards of unknown origin: one sentence for whatever is wrong with one."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffsplat.data import shard_schema
from diffsplat.errors import DiffSplatError, InvalidInputError, one_line

if TYPE_CHECKING:
    import pyarrow

DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    SyntaxError,
    RuntimeError,
    MemoryError,
)
"""What pyarrow, Pillow and torch raise for broken content."""
OPTIONAL_COLUMNS = ("license_basis",)
"""Columns that older shards lack, and that may be empty."""
_CHANNELS = {"rgba": "RGBA", "normal": "RGB"}


@contextmanager
def explained_damage(shard: Path, where: str = "") -> Iterator[None]:
    """Turn what broken content raises into one sentence that names the shard.

    Args:
        shard: the file.
        where: what of it is read, such as ``row 3``.

    Raises:
        ValueError: in place of such an error.
    """
    try:
        yield
    except DiffSplatError:
        raise
    except DAMAGE as error:
        place = f", {where}," if where else ""
        raise InvalidInputError(
            f"{str(shard)!r}{place} is not a readable shard: {one_line(error)}"
        ) from error


def read_columns(shard: Path, names: Sequence[str]) -> pyarrow.Table:
    """Columns of a shard, of the types of its schema; those that older shards lack are left out.

    Raises:
        ValueError: the file is no Parquet file, damaged, or has columns of other types.
    """
    shard_schema.import_pyarrow()
    from pyarrow import parquet, schema

    with explained_damage(shard):
        present = set(parquet.read_schema(shard).names)
        missing = [name for name in names if name not in present and name not in OPTIONAL_COLUMNS]
        if missing:
            raise InvalidInputError(f"{str(shard)!r} is not a readable shard: it lacks {', '.join(missing)}")
        wanted = [name for name in names if name in present]
        table = parquet.read_table(shard, columns=wanted).select(wanted)
        expected = shard_schema.table_schema()
        table = table.cast(schema([expected.field(name) for name in wanted], metadata=table.schema.metadata))
        table.validate(full=True)
        return table


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
