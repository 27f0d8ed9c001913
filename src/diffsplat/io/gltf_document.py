"""glTF 2.0 documents of unknown origin, parsed: chunks, buffers, accessors, and where the scene puts its meshes."""

import base64
import binascii
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import InvalidInputError
from diffsplat.io.parsing_limits import GROWTH, integer, mapping, numbers, parse_json, sequence

MAGIC, JSON_CHUNK, BINARY_CHUNK = b"glTF", 0x4E4F534A, 0x004E4942
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_MAX_PARTS = 4096
"""Primitives with splats in one file; each costs time and memory whatever its size."""
_LEAST_VALUES = 1 << 18
"""Numbers that may be read from any file."""

_CODES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5126: "<f4"}

Primitive = dict[str, Any]


@dataclass(frozen=True)
class Document:
    """One file.

    Args:
        root: its JSON.
        buffers: their bytes.
        value_limit: numbers that may be read from it, so that parts that are used often cannot multiply.
    """

    root: dict[str, Any]
    buffers: tuple[bytes, ...]
    value_limit: int

    @classmethod
    def parse(cls, data: bytes) -> "Document":
        """Read a ``.glb`` or ``.gltf`` file.

        Raises:
            ValueError: when it is broken or keeps buffers in other files.
        """
        text, binary = glb_chunks(data) if data[:4] == MAGIC else (data, None)
        root = parse_json(text)
        for name in sequence(root, "extensionsRequired"):
            if isinstance(name, str) and "compression" in name and "spz" not in name:
                raise InvalidInputError(f"it is compressed with {name[:80]}, which is not read here")
        buffers = tuple(_buffer(entry, binary) for entry in sequence(root, "buffers"))
        return cls(root, buffers, max(GROWTH * len(data) // 4, _LEAST_VALUES))

    def placed_meshes(
        self, wanted: Callable[[Primitive], bool]
    ) -> Iterator[tuple[list[Primitive], NDArray[np.float64]]]:
        """The wanted primitives of every node's mesh, with the node's matrix ``[4, 4]`` in the scene.

        Raises:
            ValueError: when the nodes do not form a tree or the document refers to parts it lacks.
        """
        meshes = [_primitives(mesh, wanted) for mesh in sequence(self.root, "meshes")]
        values = parts = 0
        for node, matrix in self._placed_nodes():
            if "mesh" not in node:
                continue
            mesh = _at(meshes, node["mesh"], "mesh")
            parts += len(mesh)
            if parts > _MAX_PARTS:
                raise InvalidInputError(f"it has more than {_MAX_PARTS} pieces of splats")
            values += sum(self._size(primitive) for primitive in mesh)
            if values > self.value_limit:
                raise InvalidInputError("its nodes repeat more Gaussians than its size allows")
            if mesh:
                yield mesh, matrix

    def _placed_nodes(self) -> Iterator[tuple[dict[str, Any], NDArray[np.float64]]]:
        """The visible nodes of the scene with their matrices in it."""
        nodes, scenes = sequence(self.root, "nodes"), sequence(self.root, "scenes")
        if not scenes:
            # Without a scene every mesh appears once, as if in a node of its own.
            nodes = [{"mesh": index} for index in range(len(sequence(self.root, "meshes")))]
            scenes = [{"nodes": list(range(len(nodes)))}]
        scene = _at(scenes, integer(self.root, "scene", 0), "scene")
        waiting = [(index, np.eye(4)) for index in sequence(scene, "nodes")]
        seen: set[int] = set()
        while waiting:
            index, above = waiting.pop()
            node = _at(nodes, index, "node")
            if not isinstance(node, dict):
                raise InvalidInputError("it has a node that is not an object")
            if index in seen:
                raise InvalidInputError("its nodes do not form a tree")
            seen.add(index)
            if not is_visible(node):
                continue
            with np.errstate(over="ignore", invalid="ignore"):
                matrix = above @ node_matrix(node)
            waiting += [(child, matrix) for child in sequence(node, "children")]
            yield node, matrix

    def attribute(self, primitive: Primitive, name: str, width: int) -> NDArray[np.float32]:
        """``[count, width]`` of a primitive's attribute, normalised numbers as -1..1 or 0..1.

        Raises:
            ValueError: when it is missing, of another shape, compressed, or outside of its buffer.
        """
        attributes = mapping(primitive, "attributes")
        if name not in attributes:
            raise InvalidInputError(f"its splats lack the attribute {name}")
        accessor = self._accessor(attributes, name)
        code, kind = accessor.get("componentType"), accessor.get("type")
        if (
            not isinstance(code, int)
            or code not in _CODES
            or not isinstance(kind, str)
            or _WIDTHS.get(kind) != width
        ):
            raise InvalidInputError(f"its attribute {name} has the unexpected type {kind!r} of {code!r}")
        if "sparse" in accessor or "bufferView" not in accessor:
            raise InvalidInputError(f"its attribute {name} is sparse or compressed, expected a plain one")
        stored = self._stored(accessor, np.dtype(_CODES[code]), width, name)
        values = stored.astype(np.float32)
        if accessor.get("normalized") is True and code != 5126:
            values = np.maximum(values / np.iinfo(stored.dtype).max, -1)
        return values

    def view(self, index: Any) -> bytes:
        """The bytes of a buffer view.

        Raises:
            ValueError: when there is none, or it is outside its buffer.
        """
        view = _at(sequence(self.root, "bufferViews"), index, "buffer view")
        buffer = _at(self.buffers, integer(view, "buffer"), "buffer")
        start, length = integer(view, "byteOffset", 0), integer(view, "byteLength")
        if start + length > len(buffer):
            raise InvalidInputError(f"its buffer view {index} is outside its buffer")
        return buffer[start : start + length]

    def count(self, primitive: Primitive) -> int:
        """Number of vertices, by a primitive's positions.

        Raises:
            ValueError: when it has none.
        """
        attributes = mapping(primitive, "attributes")
        if "POSITION" not in attributes:
            raise InvalidInputError("its splats lack the attribute POSITION")
        return integer(self._accessor(attributes, "POSITION"), "count")

    def _accessor(self, attributes: dict[str, Any], name: str) -> dict[str, Any]:
        accessor = _at(sequence(self.root, "accessors"), attributes[name], "accessor")
        if not isinstance(accessor, dict):
            raise InvalidInputError(f"its attribute {name} is broken")
        return accessor

    def _size(self, primitive: Primitive) -> int:
        attributes = mapping(primitive, "attributes")
        return (
            14 * integer(self._accessor(attributes, "POSITION"), "count") if "POSITION" in attributes else 0
        )

    def _stored(self, accessor: dict[str, Any], kind: np.dtype, width: int, name: str) -> NDArray[Any]:
        view = _at(sequence(self.root, "bufferViews"), accessor["bufferView"], "buffer view")
        buffer = _at(self.buffers, integer(view, "buffer"), "buffer")
        count, inside = integer(accessor, "count"), integer(accessor, "byteOffset", 0)
        start, length = integer(view, "byteOffset", 0), integer(view, "byteLength")
        row = kind.itemsize * width
        stride = integer(view, "byteStride", 0) or row
        end = inside + (count - 1) * stride + row
        if not count or stride < row or end > length or start + length > len(buffer):
            raise InvalidInputError(
                f"its attribute {name} promises {count} values, more than its buffer holds"
            )
        return np.ndarray((count, width), kind, buffer, start + inside, (stride, kind.itemsize))


def glb_chunks(data: bytes) -> tuple[bytes, bytes]:
    """JSON and numbers of a ``.glb`` file.

    Raises:
        ValueError: the bytes are no file of version 2, or damaged.
    """
    if len(data) < 20 or data[4:8] != b"\2\0\0\0":
        raise InvalidInputError("it is no .glb file of version 2")
    offset, found = 12, {}
    while offset + 8 <= len(data):
        size, kind = struct.unpack_from("<II", data, offset)
        if size > len(data) - offset - 8:
            if JSON_CHUNK in found and BINARY_CHUNK in found:
                break  # some programs leave bytes after the last chunk
            raise InvalidInputError("one of its chunks is cut")
        found.setdefault(kind, data[offset + 8 : offset + 8 + size])
        offset += 8 + size
    if JSON_CHUNK not in found:
        raise InvalidInputError("it has no JSON chunk")
    return found[JSON_CHUNK].rstrip(b"\0"), found.get(BINARY_CHUNK, b"")


def _buffer(entry: Any, binary: bytes | None) -> bytes:
    uri = entry.get("uri") if isinstance(entry, dict) else None
    if uri is None:
        if binary is None:
            raise InvalidInputError("it has a buffer without numbers")
        return binary
    content = embedded_content(uri) if isinstance(uri, str) else None
    if content is None:
        raise InvalidInputError("it keeps its numbers in another file, expected a .glb or .gltf with them")
    return content


def embedded_content(uri: str) -> bytes | None:
    """The data that a ``data:`` address holds, in base64 of any kind or percent-encoded; None for other addresses.

    Raises:
        ValueError: when it is broken.
    """
    if uri[:5].lower() != "data:":
        return None
    head, _, body = uri.partition(",")
    raw = unquote_to_bytes(body)
    if not head.lower().replace(" ", "").endswith(";base64"):
        return raw
    packed = b"".join(raw.split()).rstrip(b"=").translate(_URL_SAFE)
    try:
        return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except binascii.Error as error:
        raise InvalidInputError("it has data of broken base64") from error


def _primitives(mesh: Any, wanted: Callable[[Primitive], bool]) -> list[Primitive]:
    return [entry for entry in sequence(mesh, "primitives") if isinstance(entry, dict) and wanted(entry)]


def _at(items: Any, index: Any, name: str) -> Any:
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(items):
        raise InvalidInputError(f"it refers to the {name} {str(index)[:20]}, which it lacks")
    return items[index]


def is_visible(node: dict[str, Any]) -> bool:
    """Whether a node and those below it are shown (KHR_node_visibility)."""
    extensions = node.get("extensions")
    visibility = extensions.get("KHR_node_visibility") if isinstance(extensions, dict) else None
    return not isinstance(visibility, dict) or visibility.get("visible", True) is not False


def node_matrix(node: dict[str, Any]) -> NDArray[np.float64]:
    """``[4, 4]`` of a node in its parent."""
    if "matrix" in node:
        return np.array(_vector(node, "matrix", 16)).reshape(4, 4).T
    matrix = np.eye(4)
    turn = np.array(_vector(node, "rotation", 4) if "rotation" in node else [0, 0, 0, 1])
    x, y, z, w = turn / (np.linalg.norm(turn) or 1)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, :3] *= _vector(node, "scale", 3) if "scale" in node else 1
    matrix[:3, 3] = _vector(node, "translation", 3) if "translation" in node else 0
    return matrix


def _vector(node: dict[str, Any], key: str, length: int) -> list[float]:
    values = numbers(node, key)
    if len(values) != length:
        raise InvalidInputError(f"a node of it has {len(values)} numbers {key!r}, expected {length}")
    return values
