"""Buffer views compressed by meshoptimizer (glTF extension EXT_meshopt_compression)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import InvalidInputError, optional_package


def decoded_view(extension: str, entry: dict[str, Any], data: bytes | memoryview) -> bytes:
    """The bytes that ``data`` stands for, as the extension's ``entry`` describes.

    Raises:
        ValueError: it is broken.
        ModuleNotFoundError: the package meshoptimizer is missing.
    """
    with optional_package(f"reading {extension}", "meshoptimizer", "meshopt"):
        import meshoptimizer
    count, stride, mode = entry["count"], entry["byteStride"], entry["mode"]
    if not 0 < count <= 300 * len(data) + 1024 or not 0 < stride <= 256:
        raise InvalidInputError(f"it has a {extension} of {count} values of {stride} bytes")
    packed = np.frombuffer(data, np.uint8)
    try:
        if mode == "ATTRIBUTES":
            rows = meshoptimizer.decode_vertex_buffer(count, stride, packed, np.dtype((np.void, stride)))
            return _filtered(
                entry.get("filter", "NONE"), rows.view(np.uint8).reshape(count, stride)
            ).tobytes()
        decode = {
            "TRIANGLES": meshoptimizer.decode_index_buffer,
            "INDICES": meshoptimizer.decode_index_sequence,
        }[mode]
        # The package decodes to 4 bytes an index whatever the size it is told.
        return decode(count, 4, packed).astype(f"<u{stride}").tobytes()
    except RuntimeError as error:
        raise InvalidInputError(f"its {extension} is broken ({error})") from error


def _filtered(name: str, rows: NDArray[np.uint8]) -> NDArray[Any]:
    """``rows [N, stride]`` with a filter of the extension undone (its specification, appendix B)."""
    stride = rows.shape[1]
    match name:
        case "NONE":
            return rows
        case "OCTAHEDRAL":
            return _octahedral(rows.view(f"<i{stride // 4}"))
        case "QUATERNION":
            return _quaternion(rows.view("<i2"))
        case "EXPONENTIAL":
            packed = rows.view("<i4")
            return np.ldexp((packed << 8 >> 8).astype(np.float32), packed >> 24).astype("<f4")
        case _:
            raise InvalidInputError(f"it has the compression filter {str(name)[:20]!r}, which is not known")


def _octahedral(packed: NDArray[np.integer]) -> NDArray[np.integer]:
    """Unit vectors (and a fourth number as it is) of octahedral coordinates; the third number stands for 1."""
    x, y, one = (packed[:, i].astype(np.float64) for i in range(3))
    one = np.maximum(one, 1)
    x, y = x / one, y / one
    z = 1 - np.abs(x) - np.abs(y)
    fold = np.maximum(-z, 0)
    vector = np.stack([x - np.copysign(fold, x), y - np.copysign(fold, y), z], axis=1)
    vector /= np.linalg.norm(vector, axis=1, keepdims=True)
    top = np.iinfo(packed.dtype).max
    return np.concatenate([np.rint(vector * top).astype(packed.dtype), packed[:, 3:]], axis=1)


def _quaternion(packed: NDArray[np.int16]) -> NDArray[np.int16]:
    """Unit quaternions of three components; the fourth number says how large 1 is and which is left out."""
    scale = (packed[:, 3] | 3).astype(np.float64)
    three = packed[:, :3] / scale[:, None] / np.sqrt(2)
    largest = np.sqrt(np.maximum(1 - (three**2).sum(axis=1), 0))
    order = (packed[:, 3] & 3)[:, None]
    quaternion = np.empty(packed.shape)
    for offset, values in zip((1, 2, 3, 0), (*three.T, largest), strict=True):
        np.put_along_axis(quaternion, (order + offset) % 4, values[:, None], axis=1)
    return np.rint(quaternion * 32767).astype("<i2")
