"""Tables of PLY files of any kind: text and binary, single numbers and lists."""

from __future__ import annotations

import codecs
import re
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import InvalidInputError

_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4",
    "uint32": "u4", "float32": "f4", "float64": "f8", "int64": "i8", "uint64": "u8",
}  # fmt: skip
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


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


@dataclass(frozen=True)
class _Property:
    name: str
    kind: str
    size_kind: str = ""
    """Type of a list's length, empty for single numbers."""


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    properties: list[_Property]


@dataclass(frozen=True)
class _Header:
    order: str
    elements: list[_Element]
    textures: list[str]


def read_tables(data: bytes) -> PlyFile:
    """All elements of a PLY file.

    Raises:
        ValueError: it is broken or shorter than it promises.
    """
    data = data.removeprefix(codecs.BOM_UTF8)
    end = re.search(rb"end_header[ \t]*(\r\n|\r|\n)", data)
    if not data.startswith(b"ply") or end is None:
        raise InvalidInputError("it has no PLY header")
    header = _header(data[: end.start()])
    return PlyFile(_tables(header, data[end.end() :]), tuple(header.textures))


def _header(text: bytes) -> _Header:
    order, elements, textures = "", [], []
    for line in text.decode("latin-1").splitlines():
        words = line.split()
        match words:
            case ["format", name, *_]:
                if name not in _ORDERS:
                    raise InvalidInputError(f"it has the PLY format {name!r}, expected {', '.join(_ORDERS)}")
                order = _ORDERS[name]
            case ["comment", word, _, *_] if word.rstrip(":").lower() == "texturefile":
                textures.append(line.split(None, 2)[2].strip())
            case ["element", name, count]:
                elements.append(_Element(name, int(count), []))
            case ["property", "list", size_kind, kind, name]:
                elements[-1].properties.append(_Property(name, _TYPES[kind], _TYPES[size_kind]))
            case ["property", kind, name]:
                elements[-1].properties.append(_Property(name, _TYPES[kind]))
            case _:
                pass
    return _Header(order, elements, textures)


def _tables(header: _Header, body: bytes) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    words = None if header.order else body.split()
    place = 0
    for element in header.elements:
        if element.count < 0 or element.count > len(body):
            raise InvalidInputError(f"it promises {element.count} {element.name} rows, more than it holds")
        if words is not None:
            table, place = _text_table(element, words, place)
        else:
            table, place = _binary_table(element, header.order, body, place)
        tables.setdefault(element.name, table)
    return tables


def _text_table(element: _Element, words: list[bytes], place: int) -> tuple[Table, int]:
    width = len(element.properties)
    if not any(entry.size_kind for entry in element.properties):
        end = place + element.count * width
        values = np.array(words[place:end], dtype=np.float64).reshape(element.count, width)
        return {e.name: values[:, i].astype(e.kind) for i, e in enumerate(element.properties)}, end
    rows: dict[str, tuple[list[int], list[float]]] = {entry.name: ([], []) for entry in element.properties}
    for _ in range(element.count):
        for entry in element.properties:
            size = 1
            if entry.size_kind:
                size, place = int(words[place]), place + 1
            taken = words[place : place + size]
            if size < 0 or len(taken) < size:
                raise InvalidInputError(
                    f"it promises {element.count} {element.name} rows, more than it holds"
                )
            sizes, values = rows[entry.name]
            sizes.append(size)
            values += map(float, taken)
            place += size
    return {e.name: _column(e, *rows[e.name]) for e in element.properties}, place


def _binary_table(element: _Element, order: str, body: bytes, place: int) -> tuple[Table, int]:
    table, end = _even_table(element, order, body, place)
    return (table, end) if table is not None else _uneven_table(element, order, body, place)


def _even_table(element: _Element, order: str, body: bytes, place: int) -> tuple[Table | None, int]:
    """An element whose lists are all as long as those of its first row, None where they are not."""
    fields, sizes, offset = [], {}, place
    for index, entry in enumerate(element.properties):
        if not entry.size_kind:
            fields.append((f"v{index}", order + entry.kind))
        else:
            size_type = np.dtype(order + entry.size_kind)
            size = int(np.frombuffer(body, size_type, 1, offset)[0]) if element.count else 0
            if not 0 <= size <= len(body):
                return None, place
            sizes[index] = size
            fields += [(f"n{index}", size_type), (f"v{index}", order + entry.kind, (size,))]
        offset = place + np.dtype(fields).itemsize
    row = np.dtype(fields)
    end = place + row.itemsize * element.count
    if end > len(body):
        if sizes:
            return None, place
        raise InvalidInputError(f"it promises {element.count} {element.name} rows, more than it holds")
    rows = np.frombuffer(body, row, element.count, place)
    if any((rows[f"n{index}"] != size).any() for index, size in sizes.items()):
        return None, place
    table: Table = {}
    for index, entry in enumerate(element.properties):
        values = rows[f"v{index}"]
        if entry.size_kind:
            table[entry.name] = ListColumn(np.full(element.count, sizes[index]), values.reshape(-1))
        else:
            table[entry.name] = values
    return table, end


def _uneven_table(element: _Element, order: str, body: bytes, place: int) -> tuple[Table, int]:
    rows: dict[str, tuple[list[int], list[float]]] = {entry.name: ([], []) for entry in element.properties}
    codes = {name: np.dtype(name).char for name in set(_TYPES.values())}
    codes |= {"i8": "q", "u8": "Q"}
    for _ in range(element.count):
        for entry in element.properties:
            size = 1
            if entry.size_kind:
                form = order + codes[entry.size_kind]
                (size,) = struct.unpack_from(form, body, place)
                size, place = int(size), place + struct.calcsize(form)
            form = f"{order}{size}{codes[entry.kind]}"
            sizes, values = rows[entry.name]
            values += struct.unpack_from(form, body, place)
            sizes.append(size)
            place += struct.calcsize(form)
    return {e.name: _column(e, *rows[e.name]) for e in element.properties}, place


def _column(entry: _Property, sizes: list[int], values: list[float]) -> Column:
    column = np.array(values, dtype=np.float64).astype(entry.kind)
    return ListColumn(np.array(sizes, dtype=np.int64), column) if entry.size_kind else column
