"""Object File Format (OFF) meshes of Geomview, with its prefixes, comments and colours."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import InvalidInputError
from diffsplat.render.meshes.mesh_text import number_rows, plain_text
from diffsplat.render.meshes.polygon_triangles import polygon_triangles, within
from diffsplat.render.meshes.triangle_mesh import UNPAINTED_MATERIAL, LossList, Material, MeshPart

_HEADER = re.compile(rb"((?:ST|C|N|4|n)*)OFF(\d*)", re.IGNORECASE)


@dataclass(frozen=True)
class _Layout:
    """Which numbers a vertex has besides its position and colour, by the letters before ``OFF``."""

    texture: bool = False
    normal: bool = False
    fourth: bool = False


def read_off(data: bytes, losses: LossList) -> list[MeshPart]:
    """The part of an OFF file.

    Raises:
        ValueError: it is broken, binary or of more dimensions.
    """
    lines = [words for line in plain_text(data).splitlines() if (words := line.partition(b"#")[0].split())]
    start = next((row for row, words in enumerate(lines) if _HEADER.fullmatch(words[0])), 0)
    if start:
        losses.color("the appearance before its OFF header is not read")
    lines, layout = lines[start:], _Layout()
    if lines and (found := _HEADER.fullmatch(lines[0][0])):
        letters = found[1]
        layout = _Layout(texture=b"ST" in letters, normal=b"N" in letters, fourth=b"4" in letters)
        if b"n" in letters or b"BINARY" in lines[0]:
            raise InvalidInputError("it is a binary or many-dimensional OFF file, expected text in 3D")
        lines[0][:1] = [found[2]] if found[2] else []  # "OFF490 926 0", as in ModelNet
        lines = [words for words in lines if words]
    if not lines or len(lines[0]) < 2:
        raise InvalidInputError("it has no OFF header with the numbers of vertices and faces")
    vertex_count, face_count = int(lines[0][0]), int(lines[0][1])
    if vertex_count < 1 or face_count < 0 or vertex_count + face_count > len(lines) - 1:
        raise InvalidInputError(
            f"it promises {vertex_count} vertices and {face_count} faces, more than its lines"
        )
    return [_part(lines[1 : 1 + vertex_count], lines[1 + vertex_count :][:face_count], layout, losses)]


def _part(
    vertex_lines: list[list[bytes]], face_lines: list[list[bytes]], layout: _Layout, losses: LossList
) -> MeshPart:
    width = min(map(len, vertex_lines))
    vertices = number_rows(vertex_lines, width)
    faces = [[int(word) for word in words[1 : 1 + int(words[0])]] for words in face_lines]
    sizes = np.array([len(face) for face in faces], dtype=np.int64)
    if any(size < int(words[0]) for size, words in zip(sizes, face_lines, strict=True)):
        raise InvalidInputError("it has a face with fewer corners in its line than it promises")
    places = np.array([place for row in faces for place in row], dtype=np.int64)
    corner, face = polygon_triangles(sizes, vertices[places.clip(0, len(vertices) - 1), :3])
    places = places[corner]
    inside = within(places, len(vertices), losses)
    places, face = places[inside], face[inside]
    positions, normals, colors = _columns(vertices, vertex_lines, layout)
    if colors is None:
        painted = _face_colors(face_lines, sizes, losses)
        corner_colors = None if painted is None else np.repeat(painted[face, None], 3, axis=1)
    else:
        corner_colors = colors[places]
    material = UNPAINTED_MATERIAL if corner_colors is None else Material()
    return MeshPart(
        positions[places],
        material,
        normals=None if normals is None else normals[places],
        colors=corner_colors,
    )


def _columns(
    vertices: NDArray[np.float64], lines: list[list[bytes]], layout: _Layout
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Positions ``[N, 3]``, normals ``[N, 3]`` and colours ``[N, 4]`` of the vertices."""
    if vertices.shape[1] < 3 + layout.fourth:
        raise InvalidInputError("its vertices have fewer than three numbers")
    positions, next_column = vertices[:, :3], 3 + layout.fourth
    if layout.fourth:
        positions = positions / vertices[:, 3:4]
    normals = None
    if layout.normal and vertices.shape[1] >= next_column + 3:
        normals = vertices[:, next_column : next_column + 3]
        next_column += 3
    rest = vertices.shape[1] - next_column - (2 if layout.texture else 0)
    if rest < 3:
        return positions, normals, None
    end = next_column + min(rest, 4)
    whole = _are_whole([words[next_column:end] for words in lines])
    return positions, normals, _colors(vertices[:, next_column:end], whole)


def _face_colors(
    lines: list[list[bytes]], sizes: NDArray[np.int64], losses: LossList
) -> NDArray[np.float64] | None:
    """``[N, 4]`` from the numbers behind the corners of each face, None where no face has any."""
    rest = [words[1 + size :] for words, size in zip(lines, sizes, strict=True)]
    if any(len(words) == 1 for words in rest):
        losses.color("its faces have colours of a colour map, which is not read")
    painted = np.array([len(words) >= 3 for words in rest])
    if not painted.any():
        return None
    given = [words[:4] for words in rest if len(words) >= 3]
    whole = _are_whole(given)
    opaque = b"255" if whole else b"1"
    colors = np.tile(UNPAINTED_MATERIAL.color.astype(np.float64), (len(rest), 1))
    colors[painted] = _colors(np.array([[*words, opaque][:4] for words in given], dtype=np.float64), whole)
    return colors


def _are_whole(rows: list[list[bytes]]) -> bool:
    """Whether colours are numbers up to 255; of 0 and 1 alone, they are fractions without a point."""
    words = {word for row in rows for word in row}
    return not any(b"." in word for word in words) and not words <= {b"0", b"1"}


def _colors(values: NDArray[np.float64], whole: bool) -> NDArray[np.float64]:
    """``[N, 4]`` of whole numbers up to 255 or of fractions, with or without an opacity."""
    scaled = values / 255 if whole or values[:, :3].max() > 1 else values
    opacity = scaled[:, 3:] if values.shape[1] > 3 else np.ones((len(values), 1))
    return np.nan_to_num(np.concatenate([scaled[:, :3], opacity], axis=1)).clip(0, 1)
