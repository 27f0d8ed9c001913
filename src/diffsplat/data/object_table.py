"""Rows of folders of shards, read from memory-mapped Arrow when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from diffsplat.data import shard_schema
from diffsplat.data.shard_folders import Shard, ShardFolder
from diffsplat.data.shard_index import listed_shards, open_table
from diffsplat.data.shard_reading import explained_damage
from diffsplat.data.shard_row import ObjectRow
from diffsplat.errors import InvalidInputError

if TYPE_CHECKING:
    import pyarrow

_ROWS_AT_ONCE = 256


class ObjectTable(Sequence[ObjectRow]):
    """Rows of one or more folders, or some of them; a row is made when it is asked for, and not kept.

    In memory are the numbers of the selected rows, nothing when all are. Another process opens the files again.
    """

    def __init__(self, folders: Sequence[str | Path | ShardFolder]) -> None:
        """Map all rows.

        Raises:
            FileNotFoundError: a folder holds no shard.
            ValueError: a shard is damaged.
        """
        self._folders = tuple(map(ShardFolder.at, folders))
        self._numbers: NDArray[np.int64] | None = None
        self._open()

    def _open(self) -> None:
        import pyarrow as pa

        tables = [open_table(folder) for folder in self._folders]
        self._shards = [listed_shards(table, f) for table, f in zip(tables, self._folders, strict=True)]
        self._starts = np.cumsum([0, *map(len, tables)])
        self._table: pyarrow.Table = pa.concat_tables([table.replace_schema_metadata() for table in tables])

    def __getstate__(self) -> dict[str, Any]:
        return {"_folders": self._folders, "_numbers": self._numbers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self._table) if self._numbers is None else len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> ObjectRow: ...
    @overload
    def __getitem__(self, index: slice) -> ObjectTable: ...
    def __getitem__(self, index: int | slice) -> ObjectRow | ObjectTable:
        """A row, or the rows of a slice.

        Raises:
            ValueError: the row is damaged.
        """
        if isinstance(index, slice):
            return self._selected(self._every()[index])
        place = range(len(self))[index]
        number = place if self._numbers is None else int(self._numbers[place])
        return self._row(number, self._table.slice(number, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[ObjectRow]:
        numbers = self._every()
        for start in range(0, len(self._table), _ROWS_AT_ONCE):
            low, high = np.searchsorted(numbers, [start, start + _ROWS_AT_ONCE])
            chosen = numbers[low:high]
            if len(chosen):
                block = self._table.slice(start, _ROWS_AT_ONCE).take(chosen - start).to_pylist()
                for number, cells in zip(chosen.tolist(), block, strict=True):
                    yield self._row(number, cells)

    def shards(self) -> list[Shard]:
        """The shards of all folders, whatever rows are selected."""
        return [shard for shards in self._shards for shard in shards]

    def select(self, wanted: NDArray[np.bool_] | pyarrow.ChunkedArray) -> ObjectTable:
        """The rows with True, in the same order."""
        return self._selected(self._every()[np.asarray(wanted, dtype=bool)])

    def column(self, name: str) -> pyarrow.ChunkedArray:
        """A column, without making rows."""
        column = self._table.column(name)
        if self._numbers is None:
            return column
        mask = np.zeros(len(self._table), dtype=bool)
        mask[self._numbers] = True
        return column.filter(mask)

    def where(self, name: str, value: str) -> NDArray[np.bool_]:
        """``[N]`` whether the rows have this text in a column."""
        return np.asarray(shard_schema.import_compute().equal(self.column(name), value), dtype=bool)

    def seen_between(self, least_degrees: float, greatest_degrees: float) -> NDArray[np.bool_]:
        """``[N]`` whether a view of the row has an elevation above the least and up to the greatest."""
        found: list[NDArray[np.bool_]] = []
        for chunk in self.column("elevations").chunks:
            degrees = chunk.flatten().to_numpy().astype(np.float64)
            rows = np.repeat(np.arange(len(chunk)), chunk.value_lengths().to_numpy())
            inside = (least_degrees < degrees) & (degrees <= greatest_degrees)
            found.append(np.bincount(rows[inside], minlength=len(chunk)) > 0)
        return np.concatenate(found) if found else np.zeros(0, dtype=bool)

    def require_geometry(self) -> None:
        """Refuse shards of images alone: networks that see surfaces are trained with normals and depths.

        Raises:
            ValueError: for the first shard that lacks them.
        """
        lacking = np.flatnonzero(~np.asarray(self.column("geometry"), dtype=bool))
        if len(lacking):
            raise InvalidInputError(
                f"{str(self[int(lacking[0])].shard)!r} has no normals and depths, expected objects with both: render "
                "them with 'diffsplat data render'"
            )

    def _every(self) -> NDArray[np.int64]:
        return np.arange(len(self._table)) if self._numbers is None else self._numbers

    def _selected(self, numbers: NDArray[np.int64]) -> ObjectTable:
        if len(numbers) > 1 and numbers[0] > numbers[-1]:
            raise ValueError("rows are selected in ascending order, expected a slice with a positive step")
        table = object.__new__(ObjectTable)
        table.__dict__.update(self.__dict__)
        table._numbers = numbers
        return table

    def _row(self, number: int, cells: dict[str, Any]) -> ObjectRow:
        part = int(np.searchsorted(self._starts, number, side="right")) - 1
        folder = self._folders[part]
        with explained_damage(Shard(folder, "rows"), f"row {number - int(self._starts[part])}"):
            shard = self._shards[part][cells["shard"]]
        with explained_damage(shard, f"row {cells['place']}"):
            return ObjectRow.of_cells(cells, shard)
