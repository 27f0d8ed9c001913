"""Records of how splats were made, inside files of formats that have room for them: .ply and glTF."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

_COMMENT = "comment origin "
_COMMENT_LENGTH = 200
"""Characters of a record in one line: readers of .ply may have buffers for short lines."""


def with_origin(data: bytes, suffix: str, origin: Mapping[str, Any]) -> bytes:
    """A splat file with a record: comments of a ``.ply`` header that joined are JSON, or ``asset.extras.origin``.

    Files of other formats are returned as they are.

    Args:
        data: the file.
        suffix: its format.
        origin: JSON values.
    """
    match suffix:
        case ".ply" | ".compressed.ply":
            return _in_ply(data, json.dumps(origin))
        case ".gltf":
            return json.dumps(_in_document(data, origin)).encode()
        case ".glb":
            return _in_glb(data, origin)
        case _:
            return data


def _in_ply(data: bytes, text: str) -> bytes:
    parts = [text[start : start + _COMMENT_LENGTH] for start in range(0, len(text), _COMMENT_LENGTH)]
    lines = "".join(f"{_COMMENT}{part}\n" for part in parts).encode("ascii")
    end = data.index(b"\n", data.index(b"\nformat ") + 1) + 1
    return data[:end] + lines + data[end:]


def _in_document(text: bytes, origin: Mapping[str, Any]) -> dict[str, Any]:
    document = json.loads(text)
    document["asset"]["extras"] = {"origin": dict(origin)}
    return document


def _in_glb(data: bytes, origin: Mapping[str, Any]) -> bytes:
    """The JSON is the first chunk, after a head of 12 bytes (glTF 2.0, section 4.4)."""
    length, kind = struct.unpack_from("<II", data, 12)
    text = json.dumps(_in_document(data[20 : 20 + length], origin)).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + length :]
    size = 20 + len(text) + len(rest)
    return data[:8] + struct.pack("<III", size, len(text), kind) + text + rest
