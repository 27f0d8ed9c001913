"""glTF 2.0 files with everything they refer to: buffers, compressed views, accessors, images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import DiffSplatError, InvalidInputError
from diffsplat.io.gltf_document import MAGIC, embedded_content, glb_chunks
from diffsplat.io.parsing_limits import without_nulls
from diffsplat.render.meshes.linked_files import read_linked
from diffsplat.render.meshes.mesh_text import plain_text
from diffsplat.render.meshes.meshopt_compression import decoded_view
from diffsplat.render.meshes.triangle_mesh import LossList

_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_KINDS = {
    5120: "<i1",
    5121: "<u1",
    5122: "<i2",
    5123: "<u2",
    5124: "<i4",
    5125: "<u4",
    5126: "<f4",
    5130: "<f8",
}
"""Signed 32 bits and double precision, which core glTF lacks, are written by some programs."""
_MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")
_ZEROS_ALLOWED = 1 << 22
"""Numbers of an accessor without a buffer view, which are all zero and not in the file."""


class GltfAsset:
    """One file; ``losses`` collects what it asks for and does not get.

    Args:
        data: the file.
        folder: where the files that it refers to lie.
        losses: to note losses in.

    Raises:
        ValueError: it is broken or of another version.
    """

    def __init__(self, data: bytes, folder: Path, losses: LossList) -> None:
        text, self._binary = glb_chunks(data) if data[:4] == MAGIC else (data, b"")
        self.root: dict[str, Any] = json.loads(plain_text(text), object_hook=without_nulls)
        self.folder = folder
        self.losses = losses
        self._views: dict[int, bytes] = {}
        self._buffers: dict[int, bytes] = {}
        if not (self.root.get("nodes") or self.root.get("scenes")):
            # A library of meshes: each appears once, as if in a node of its own.
            self.root["nodes"] = [{"mesh": index} for index in range(len(self.root.get("meshes", [])))]
        version = str(self.root.get("asset", {}).get("version", "2.0"))
        if not version.startswith("2"):
            raise InvalidInputError(f"it has glTF version {version[:20]}, expected 2.0")

    def entry(self, kind: str, index: Any) -> dict[str, Any]:
        """``root[kind][index]``.

        Raises:
            ValueError: it is not there.
        """
        entries = self.root.get(kind, [])
        if type(index) is not int or not 0 <= index < len(entries):
            raise InvalidInputError(f"it refers to {kind}[{str(index)[:20]}], which it lacks")
        return entries[index]

    def view(self, index: Any) -> tuple[bytes | memoryview, int]:
        """The bytes of a buffer view and its stride, 0 for none."""
        entry = self.entry("bufferViews", index)
        for name in _MESHOPT:
            compressed = extension(entry, name)
            if compressed is not None:
                if index not in self._views:
                    self._views[index] = decoded_view(name, compressed, self._slice(compressed))
                return self._views[index], entry.get("byteStride", 0)
        return self._slice(entry), entry.get("byteStride", 0)

    def values(self, index: Any) -> NDArray[Any]:
        """``[count, width]`` of an accessor, normalised numbers as -1..1 or 0..1."""
        accessor = self.entry("accessors", index)
        return self.normalized(accessor, self.stored(accessor))

    @staticmethod
    def normalized(accessor: dict[str, Any], stored: NDArray[Any]) -> NDArray[Any]:
        """The values that ``stored`` numbers of an accessor stand for."""
        if accessor.get("normalized") is not True or stored.dtype.kind == "f":
            return stored
        return np.maximum(stored.astype(np.float64) / np.iinfo(stored.dtype).max, -1.0)

    def stored(self, accessor: dict[str, Any]) -> NDArray[Any]:
        """``[count, width]`` of an accessor as stored, with sparse values filled in.

        Raises:
            ValueError: the accessor is damaged.
        """
        width, kind = _WIDTHS[accessor["type"]], np.dtype(_KINDS[accessor["componentType"]])
        count = accessor["count"]
        if "bufferView" in accessor:
            values = self._table(accessor, count, width, kind)
        elif count * width > _ZEROS_ALLOWED:
            raise InvalidInputError(f"it has an accessor of {count} values without a buffer view")
        else:
            values = np.zeros((count, width), dtype=kind)
        sparse = accessor.get("sparse")
        if sparse is None:
            return values
        places = sparse["indices"]
        rows = self._table(places, sparse["count"], 1, np.dtype(_KINDS[places["componentType"]]))[:, 0]
        if (rows >= count).any():
            raise InvalidInputError("it has a sparse accessor with places beyond its end")
        values = values.copy()
        values[rows] = self._table(sparse["values"], sparse["count"], width, kind)
        return values

    def _table(self, place: dict[str, Any], count: int, width: int, kind: np.dtype) -> NDArray[Any]:
        data, stride = self.view(place["bufferView"])
        row, offset = kind.itemsize * width, place.get("byteOffset", 0)
        stride = stride or row
        if count == 0:
            return np.zeros((0, width), kind)
        if count < 0 or offset < 0 or stride < 1 or offset + (count - 1) * stride + row > len(data):
            raise InvalidInputError(f"it has an accessor of {count} values, more than its buffer holds")
        return np.ndarray((count, width), kind, data, offset, (stride, kind.itemsize))

    def _slice(self, place: dict[str, Any]) -> memoryview:
        buffer = self._buffer(place.get("buffer"))
        start, length = place.get("byteOffset", 0), place["byteLength"]
        if start < 0 or length < 0 or start + length > len(buffer):
            raise InvalidInputError(f"it has a buffer view of {length} bytes beyond its buffer's end")
        return memoryview(buffer)[start : start + length]

    def _buffer(self, index: Any) -> bytes:
        if index not in self._buffers:
            uri = self.entry("buffers", index).get("uri")
            self._buffers[index] = self._binary if uri is None else self._buffer_content(uri)
        return self._buffers[index]

    def _buffer_content(self, uri: str) -> bytes:
        try:
            return self.content(uri)
        except DiffSplatError as error:
            raise InvalidInputError(f"its buffer {uri[:80]!r} {error}") from error

    def content(self, uri: str) -> bytes:
        """What an address holds: the data in it, or a file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it cannot be read.
        """
        content = embedded_content(uri)
        return read_linked(uri, self.folder) if content is None else content


def extension(holder: dict[str, Any], name: str) -> dict[str, Any] | None:
    """An extension of a JSON object, None where it has none."""
    return holder.get("extensions", {}).get(name)
