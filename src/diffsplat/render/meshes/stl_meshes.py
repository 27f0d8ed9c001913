"""STL meshes, text and binary, with the two usual kinds of colour."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import InvalidInputError
from diffsplat.render.meshes.mesh_text import numbers, plain_text
from diffsplat.render.meshes.triangle_mesh import UNPAINTED_MATERIAL, LossList, Material, MeshPart

_HEADER = 84
_TEXT = re.compile(rb"\b(solid|facet)\b", re.IGNORECASE)
_NAMES = re.compile(rb"\b(?:end)?solid\b.*?(?=\bfacet\b|\Z)", re.DOTALL)
_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("color", "<u2")])


def read_stl(data: bytes, losses: LossList) -> list[MeshPart]:
    """The part of an STL file.

    Raises:
        ValueError: it is broken.
    """
    text = plain_text(data)
    if _TEXT.search(text[:_HEADER]) and b"\0" not in text[:_HEADER]:
        return [_text_part(text, losses)]
    if len(data) < _HEADER:
        raise InvalidInputError("it is too short for an STL file")
    promised = int.from_bytes(data[80:84], "little")
    held = (len(data) - _HEADER) // _FACET.itemsize
    if promised > held:
        raise InvalidInputError(f"it promises {promised} triangles and holds {held}")
    facets = np.frombuffer(data, _FACET, promised or held, _HEADER)
    colors = _colors(data[:80], facets["color"])
    material = UNPAINTED_MATERIAL if colors is None else Material()
    return [MeshPart(facets["corners"].astype(np.float64), material, colors=colors)]


def _text_part(text: bytes, losses: LossList) -> MeshPart:
    if b"endsolid" not in text.lower():
        losses.part("it is cut, or lacks its last line (endsolid)")
    words = _NAMES.sub(b"", text.lower()).split()
    starts = [place for place, word in enumerate(words) if word == b"vertex"]
    corners = np.array([numbers(words[place + 1 : place + 4]) for place in starts], dtype=np.float64)
    if len(corners) % 3 or (len(corners) and corners.shape[1:] != (3,)):
        raise InvalidInputError("it ends in the middle of a triangle")
    return MeshPart(corners.reshape(-1, 3, 3), UNPAINTED_MATERIAL)


def _colors(header: bytes, packed: NDArray[np.uint16]) -> NDArray[np.float64] | None:
    """``[F, 3, 4]`` from five bits a channel: Magics where the header has a colour, VisCAM otherwise."""
    fifths = np.stack([packed >> shift & 31 for shift in (0, 5, 10)], axis=1) / 31
    marked = packed >> 15 == 1
    place = header.find(b"COLOR=")
    if 0 <= place <= len(header) - 10:
        whole = np.frombuffer(header, np.uint8, 4, place + 6)[:3] / 255
        colors = np.where(marked[:, None], whole, fifths)
    elif marked.any():
        colors = np.where(marked[:, None], fifths[:, ::-1], UNPAINTED_MATERIAL.color[:3])
    else:
        return None
    opaque = np.ones((len(packed), 1))
    return np.repeat(np.concatenate([colors, opaque], axis=1)[:, None], 3, axis=1)
