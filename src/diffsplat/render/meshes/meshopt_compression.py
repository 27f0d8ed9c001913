"""Buffer views compressed by meshoptimizer (glTF extension EXT_meshopt_compression)."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffsplat.errors import InvalidInputError, optional_package

_STRIDES = {"OCTAHEDRAL": (4, 8), "QUATERNION": (8,), "EXPONENTIAL": range(4, 257, 4)}
_LONGEST_RUN = 300
"""Values that a byte of compressed data may stand for."""


def decoded_view(extension: str, entry: dict[str, Any], data: bytes | memoryview) -> bytes:
    """The bytes that ``data`` stands for, as the extension's ``entry`` describes.

    Raises:
        ValueError: it is broken.
        ModuleNotFoundError: the package meshoptimizer is missing.
    """
    with optional_package(f"reading {extension}", "meshoptimizer", "meshopt"):
        import meshoptimizer
    count, stride, mode = entry["count"], entry["byteStride"], entry["mode"]
    name = entry.get("filter", "NONE")
    if not 0 < count <= _LONGEST_RUN * (len(data) + 4) or stride not in _STRIDES.get(name, range(1, 257)):
        raise InvalidInputError(f"it has a {extension} of {count} values of {stride} bytes, filter {name}")
    packed = np.frombuffer(data, np.uint8)
    try:
        if mode == "ATTRIBUTES":
            rows = meshoptimizer.decode_vertex_buffer(count, stride, packed, np.dtype((np.void, stride)))
            undo = {
                "NONE": lambda rows, *_: rows,
                "OCTAHEDRAL": meshoptimizer.decode_filter_oct,
                "QUATERNION": meshoptimizer.decode_filter_quat,
                "EXPONENTIAL": meshoptimizer.decode_filter_exp,
            }[name]
            return undo(rows, count, stride).tobytes()
        decode = {
            "TRIANGLES": meshoptimizer.decode_index_buffer,
            "INDICES": meshoptimizer.decode_index_sequence,
        }[mode]
        # The package decodes to 4 bytes an index whatever the size it is told.
        return decode(count, 4, packed).astype(f"<u{stride}").tobytes()
    except RuntimeError as error:
        raise InvalidInputError(f"its {extension} is broken ({error})") from error
