"""Tables of PLY files of any kind: text and binary, single numbers and lists."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffsplat.errors import InvalidInputError
from diffsplat.io.ply_vertex_table import PlyElement, PlyHeader, PlyProperty, parse_header
from diffsplat.render.meshes.mesh_text import number_rows

_TEXTURE = re.compile(r"texturefile:?\s+(.*\S)", re.IGNORECASE)
_STRUCT_CODES: dict[str, str] = {
    **{"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q"},
    **{"f4": "f", "f8": "d"},
}


@dataclass(frozen=True)
class ListColumn:
    """A list property: ``sizes [N]``, and all ``values`` one after another."""

    sizes: NDArray[np.int64]
    values: NDArray


Column = NDArray | ListColumn
Table = dict[str, Column]


@dataclass(frozen=True)
class PlyFile:
    """The ``tables`` of a file by element, and the ``textures`` that its comments name."""

    tables: dict[str, Table]
    textures: tuple[str, ...]


def read_tables(data: bytes) -> PlyFile:
    """All elements of a PLY file.

    Raises:
        ValueError: it is broken or shorter than it promises.
    """
    header = parse_header(data)
    textures = (_TEXTURE.match(comment) for comment in header.comments)
    return PlyFile(_tables(header, data[header.size :]), tuple(found[1] for found in textures if found))


def _tables(header: PlyHeader, body: bytes) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    words = None if header.byte_order else body.split()
    place = 0
    for element in header.elements:
        if element.count < 0 or element.count > len(body):
            raise InvalidInputError(_too_short(element))
        try:
            if words is not None:
                table, place = _text_table(element, words, place)
            else:
                table, place = _binary_table(element, header.byte_order, body, place)
        except (struct.error, IndexError, ValueError) as error:
            raise InvalidInputError(_too_short(element)) from error
        tables.setdefault(element.name, table)
    return tables


def _too_short(element: PlyElement) -> str:
    return f"it promises {element.count} {element.name} rows, more than it holds"


def _text_table(element: PlyElement, words: list[bytes], place: int) -> tuple[Table, int]:
    width = len(element.properties)
    if not any(entry.length_code for entry in element.properties):
        end = place + element.count * width
        if end > len(words):
            raise InvalidInputError(_too_short(element))
        values = number_rows([words[place:end]], end - place).reshape(element.count, width)
        return {e.name: _typed(e, values[:, i]) for i, e in enumerate(element.properties)}, end
    rows: dict[str, tuple[list[int], list[bytes]]] = {entry.name: ([], []) for entry in element.properties}
    for _ in range(element.count):
        for entry in element.properties:
            size = 1
            if entry.length_code:
                size, place = int(float(words[place])), place + 1
            taken = words[place : place + size]
            if size < 0 or len(taken) < size:
                raise InvalidInputError(_too_short(element))
            sizes, values = rows[entry.name]
            sizes.append(size)
            values += taken
            place += size
    table: Table = {}
    for entry in element.properties:
        sizes, values = rows[entry.name]
        table[entry.name] = _column(entry, sizes, number_rows([values], len(values))[0])
    return table, place


def _typed(entry: PlyProperty, values: NDArray[np.float64]) -> NDArray:
    """Whole numbers where the property holds such; others keep all digits of a text."""
    return values if entry.code[0] == "f" else np.nan_to_num(values).astype(entry.code)


def _binary_table(element: PlyElement, order: str, body: bytes, place: int) -> tuple[Table, int]:
    table, end = _even_table(element, order, body, place)
    return (table, end) if table is not None else _uneven_table(element, order, body, place)


def _even_table(element: PlyElement, order: str, body: bytes, place: int) -> tuple[Table | None, int]:
    """An element whose lists are all as long as those of its first row, None where they are not."""
    fields, sizes, offset = [], {}, place
    for index, entry in enumerate(element.properties):
        if not entry.length_code:
            fields.append((f"v{index}", order + entry.code))
        else:
            size_type = np.dtype(order + entry.length_code)
            size = int(np.frombuffer(body, size_type, 1, offset)[0]) if element.count else 0
            if not 0 <= size <= len(body):
                return None, place
            sizes[index] = size
            fields += [(f"n{index}", size_type), (f"v{index}", order + entry.code, (size,))]
        offset = place + np.dtype(fields).itemsize
    row = np.dtype(fields)
    end = place + row.itemsize * element.count
    if end > len(body):
        if sizes:
            return None, place
        raise InvalidInputError(_too_short(element))
    rows = np.frombuffer(body, row, element.count, place)
    if any((rows[f"n{index}"] != size).any() for index, size in sizes.items()):
        return None, place
    table: Table = {}
    for index, entry in enumerate(element.properties):
        values = rows[f"v{index}"]
        if entry.length_code:
            table[entry.name] = ListColumn(np.full(element.count, sizes[index]), values.reshape(-1))
        else:
            table[entry.name] = values
    return table, end


def _uneven_table(element: PlyElement, order: str, body: bytes, place: int) -> tuple[Table, int]:
    rows: dict[str, tuple[list[int], list[float]]] = {entry.name: ([], []) for entry in element.properties}
    for _ in range(element.count):
        for entry in element.properties:
            size = 1
            if entry.length_code:
                form = order + _STRUCT_CODES[entry.length_code]
                (size,) = struct.unpack_from(form, body, place)
                size, place = int(size), place + struct.calcsize(form)
            form = f"{order}{size}{_STRUCT_CODES[entry.code]}"
            sizes, values = rows[entry.name]
            values += struct.unpack_from(form, body, place)
            sizes.append(size)
            place += struct.calcsize(form)
    return {e.name: _column(e, *rows[e.name]) for e in element.properties}, place


def _column(entry: PlyProperty, sizes: list[int], values: ArrayLike) -> Column:
    column = _typed(entry, np.asarray(values, dtype=np.float64))
    return ListColumn(np.array(sizes, dtype=np.int64), column) if entry.length_code else column
