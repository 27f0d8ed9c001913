"""Parser of a PLY file's header and vertex table: any property order, ASCII or either byte order, untrusted.

Read with numpy alone: a splat file is one fixed-width table, and its counts have to be checked against the
file's size before anything is allocated, which leaves a PLY library little to do.
"""

import re
import warnings
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import InvalidInputError

MAX_HEADER_BYTES = 1 << 20
_MAX_DIGITS = 18

_SCALAR_CODES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **{"int64": "i8", "uint64": "u8"},
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}

_BYTE_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class PlyProperty:
    """A property of an element."""

    name: str
    code: str
    """numpy code of the value, or of each value of a list."""
    length_code: str | None = None
    """numpy code of a list's length; None for a scalar."""

    @property
    def size(self) -> int:
        """Bytes of a value."""
        return int(self.code[1:])


@dataclass
class PlyElement:
    """An element, such as the vertices or the faces."""

    name: str
    count: int
    properties: list[PlyProperty] = field(default_factory=list)

    @property
    def has_lists(self) -> bool:
        """Whether some property is a list."""
        return any(entry.length_code is not None for entry in self.properties)

    @property
    def row_size(self) -> int:
        """Bytes of a row without lists."""
        return sum(entry.size for entry in self.properties)


@dataclass(frozen=True)
class PlyHeader:
    """What comes before the rows.

    Args:
        byte_order: ``<``, ``>``, or empty for ASCII.
        elements: in the order of the file.
        comments: without the keyword.
        size: bytes of the header.
    """

    byte_order: str
    elements: tuple[PlyElement, ...]
    comments: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class VertexTable:
    """The scalar properties of a file's vertices.

    Args:
        count: number of vertices, at least 1.
        columns: one array ``[count]`` a property; of a binary file, views of its bytes.
        comments: the header's comments, without the keyword.
        elements: names of all elements of the file.
        bytes_behind: bytes that follow the last element; 0 where this one is not the last.
    """

    count: int
    columns: dict[str, NDArray[np.generic]]
    comments: tuple[str, ...]
    elements: tuple[str, ...]
    bytes_behind: int

    def stack(self, names: tuple[str, ...]) -> NDArray[np.float64]:
        """``[count, len(names)]`` of the named properties."""
        return np.stack([self.columns[name].astype(np.float64) for name in names], axis=1)


def parse_vertices(data: bytes, element: str = "vertex") -> VertexTable:
    """Read one element, ``vertex`` by default, of a PLY file.

    Args:
        data: the whole file.
        element: its name.

    Raises:
        ValueError: when the bytes are no PLY file, or its header promises what the file does not hold.
    """
    header = parse_header(data)
    position = _position(header, element)
    before, vertex = header.elements[:position], header.elements[position]
    if header.byte_order:
        start = header.size
        for skipped in before:
            start = _skip_binary(data, start, skipped, header.byte_order)
        columns, behind = _binary_columns(data, start, vertex, header.byte_order)
    else:
        lines = sum(entry.count for entry in before)
        columns, behind = _ascii_columns(data[header.size :], lines, vertex)
    names = tuple(entry.name for entry in header.elements)
    is_last = position == len(names) - 1
    return VertexTable(vertex.count, columns, header.comments, names, behind if is_last else 0)


def vertex_properties(data: bytes) -> tuple[str, ...]:
    """Names of the scalar properties of a file's vertices.

    Args:
        data: the file, or as much of it as holds the header.

    Raises:
        ValueError: when the bytes do not start with the header of a PLY file.
    """
    header = parse_header(data)
    return tuple(entry.name for entry in header.elements[_position(header, "vertex")].properties)


def parse_header(data: bytes) -> PlyHeader:
    """The header of a PLY file.

    Raises:
        ValueError: when the bytes do not start with one.
    """
    lines, size = _header_lines(data)
    byte_order: str | None = None
    elements: list[PlyElement] = []
    comments: list[str] = []
    for line in lines:
        words = line.split()
        match words:
            case []:
                pass
            case ["comment", *_]:
                comments.append(line.strip().removeprefix("comment").strip())
            case ["format", kind, "1.0"] if kind in _BYTE_ORDERS and byte_order is None:
                byte_order = _BYTE_ORDERS[kind]
            case ["element", name, count] if count.isdecimal() and len(count) <= _MAX_DIGITS:
                elements.append(PlyElement(name, int(count)))
            case ["property", *rest] if elements and (entry := _parse_property(rest)) is not None:
                elements[-1].properties.append(entry)
            case [word, *_] if word not in ("format", "element", "property"):
                pass  # a comment that says not that it is one
            case _:
                raise InvalidInputError(
                    f"its PLY header has the line {line[:80]!r}, which is not understood there"
                )
    if byte_order is None:
        raise InvalidInputError("its PLY header has no line with the format")
    return PlyHeader(byte_order, tuple(elements), tuple(comments), size)


def _header_lines(data: bytes) -> tuple[list[str], int]:
    """The lines between the first and ``end_header``, and the size of it all in bytes."""
    first = re.match(rb"(?:\xef\xbb\xbf)?ply[ \t]*(\r\n|\n|\r)", data)
    if first is None:
        raise InvalidInputError("it is empty" if not data else "it does not start like a PLY file")
    head = data[:MAX_HEADER_BYTES]
    newline = first.group(1)
    ending = re.compile(b"[\r\n](end_header[ \t]*)(?:%b|\n)" % newline)
    last = ending.search(head, first.start(1))
    if last is None:
        raise InvalidInputError("its PLY header has no end")
    text = head[first.end() : last.start(1)].decode("utf-8", errors="replace")
    return text.splitlines(), last.end()


def _parse_property(words: list[str]) -> PlyProperty | None:
    match words:
        case [kind, name] if kind in _SCALAR_CODES:
            return PlyProperty(name, _SCALAR_CODES[kind])
        case ["list", length, kind, name] if (
            kind in _SCALAR_CODES and _SCALAR_CODES.get(length, "f")[0] != "f"
        ):
            return PlyProperty(name, _SCALAR_CODES[kind], length_code=_SCALAR_CODES[length])
    return None


def _position(header: PlyHeader, name: str) -> int:
    """Index of the only element of this name."""
    found = [index for index, element in enumerate(header.elements) if element.name == name]
    if len(found) != 1:
        raise InvalidInputError(f"its PLY header names {len(found)} {name} elements, expected one")
    vertex = header.elements[found[0]]
    names = [entry.name for entry in vertex.properties]
    if vertex.count == 0:
        raise InvalidInputError("it has no vertices")
    if not names:
        raise InvalidInputError("its vertices have no properties")
    if len(set(names)) != len(names):
        raise InvalidInputError("its vertices have two properties of the same name")
    if vertex.has_lists:
        raise InvalidInputError("its vertices have a list property, expected numbers only")
    return found[0]


def _skip_binary(data: bytes, start: int, element: PlyElement, byte_order: str) -> int:
    """The offset behind an element."""
    if not element.has_lists:
        return start + element.count * element.row_size
    order = "little" if byte_order == "<" else "big"
    for _ in range(element.count):
        for entry in element.properties:
            length = 1
            if entry.length_code is not None:
                width = int(entry.length_code[1:])
                signed = entry.length_code[0] == "i"
                length = int.from_bytes(data[start : start + width], order, signed=signed)
                start += width
            start += length * entry.size
            if length < 0 or start > len(data):
                raise InvalidInputError(
                    f"it ends inside the element {element.name!r} or has a broken list there"
                )
    return start


def _binary_columns(
    data: bytes, start: int, vertex: PlyElement, byte_order: str
) -> tuple[dict[str, NDArray[np.generic]], int]:
    """Columns by name, and the number of bytes behind them."""
    wanted, left = vertex.count * vertex.row_size, max(len(data) - start, 0)
    if wanted > left:
        raise InvalidInputError(
            f"its header promises {vertex.count} vertices in {wanted} bytes, but it holds {left} bytes"
        )
    columns: dict[str, NDArray[np.generic]] = {}
    offset = start
    for entry in vertex.properties:
        columns[entry.name] = np.ndarray(
            (vertex.count,), np.dtype(byte_order + entry.code), data, offset, (vertex.row_size,)
        )
        offset += entry.size
    return columns, left - wanted


def _ascii_columns(
    body: bytes, skipped: int, vertex: PlyElement
) -> tuple[dict[str, NDArray[np.generic]], int]:
    """Columns by name, and the number of bytes behind them."""
    body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").rstrip()
    ends = np.append(np.flatnonzero(np.frombuffer(body, np.uint8) == ord("\n")), len(body))
    lines = len(ends) - skipped
    if vertex.count > lines:
        raise InvalidInputError(f"its header promises {vertex.count} vertices, it has {max(lines, 0)} lines")
    start = int(ends[skipped - 1]) + 1 if skipped else 0
    end = int(ends[skipped + vertex.count - 1])
    text = body[start:end]
    values = _parse_numbers(text)
    width = len(vertex.properties)
    if values is None or values.size != vertex.count * width:
        raise InvalidInputError(f"it has vertices that are not {width} numbers each")
    table = values.reshape(vertex.count, width)
    columns: dict[str, NDArray[np.generic]] = {
        entry.name: table[:, index] for index, entry in enumerate(vertex.properties)
    }
    return columns, len(body) - end


def _parse_numbers(text: bytes) -> NDArray[np.float64] | None:
    """All numbers of a text; None when it contains anything else."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            # The only parser at hand that makes no Python object of every number.
            return np.fromstring(text, dtype=np.float64, sep=" ")
        except (DeprecationWarning, ValueError):
            return None
