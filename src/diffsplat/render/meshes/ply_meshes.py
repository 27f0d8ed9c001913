"""PLY meshes: text and binary, polygons and triangle strips, colours of vertices and faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import DiffSplatError, InvalidInputError
from diffsplat.render.meshes.linked_files import read_linked
from diffsplat.render.meshes.ply_tables import Column, ListColumn, Table, read_tables
from diffsplat.render.meshes.polygon_triangles import polygon_fans, strip_triangles, within
from diffsplat.render.meshes.texture_images import decode_texture
from diffsplat.render.meshes.triangle_mesh import (
    UNPAINTED_MATERIAL,
    LossList,
    Material,
    MeshPart,
    Texture,
)

_POSITION = (("x", "y", "z"),)
_NORMAL = (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z"))
_UV = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"))
_COLOR = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
_ALPHA = (("alpha",), ("diffuse_alpha",), ("a",))
_FACES = ("vertex_indices", "vertex_index", "vertices")


def read_ply(data: bytes, folder: Path, losses: LossList) -> list[MeshPart]:
    """The parts of a PLY file in ``folder``.

    Raises:
        ValueError: it is broken, or holds no surface.
    """
    file = read_tables(data)
    tables = file.tables
    vertices = tables.get("vertex", {})
    corners, faces = _triangles(tables)
    if corners is None:
        kind = "Gaussian splats" if "f_dc_0" in vertices else "a point cloud"
        raise InvalidInputError(f"it is {kind}, expected a mesh with faces")
    positions = _columns(vertices, _POSITION)
    if positions is None:
        raise InvalidInputError("its vertices have no x, y, z")
    inside = within(corners, len(positions), losses)
    return _painted(tables, corners, faces, inside, _textures(file.textures, folder, losses))


def _painted(
    tables: dict[str, Table],
    corners: NDArray[np.int64],
    faces: NDArray[np.int64] | None,
    inside: NDArray[np.bool_],
    textures: list[Texture | None],
) -> list[MeshPart]:
    """One part for each texture."""
    vertices = tables["vertex"]
    places = corners[inside]
    wedge, number = _wedges(tables.get("face", {}), faces)
    uv = wedge[inside] if wedge is not None else _at(_columns(vertices, _UV), places)
    colors = _at(_colors(vertices), places)
    if colors is None and faces is not None:
        painted = _colors(tables["face"])
        colors = None if painted is None else np.repeat(painted[faces[inside], None], 3, axis=1)
    positions, normals = (_at(_columns(vertices, names), places) for names in (_POSITION, _NORMAL))
    assert positions is not None
    number = np.zeros(len(places), np.int64) if number is None else number[inside]
    parts = []
    for index in np.unique(number):
        texture = textures[index] if uv is not None and 0 <= index < len(textures) else None
        material = UNPAINTED_MATERIAL if texture is None and colors is None else Material(texture=texture)
        chosen = number == index
        parts.append(
            MeshPart(
                positions[chosen],
                material,
                *(None if values is None else values[chosen] for values in (normals, uv, colors)),
            )
        )
    return parts


def _triangles(tables: dict[str, Table]) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Vertices ``[F, 3]`` of all triangles, and the face ``[F]`` of each; no faces for strips."""
    for name in _FACES:
        lists = tables.get("face", {}).get(name)
        if isinstance(lists, ListColumn):
            corner, face = polygon_fans(lists.sizes)
            return lists.values.astype(np.int64)[corner], face
        strips = tables.get("tristrips", {}).get(name)
        if isinstance(strips, ListColumn):
            ends = np.cumsum(strips.sizes)[:-1]
            joined = np.insert(strips.values.astype(np.int64), ends, -1)
            return strip_triangles(joined, -1), None
    return None, None


def _wedges(table: Table, faces: NDArray[np.int64] | None) -> tuple[NDArray | None, NDArray[np.int64] | None]:
    """Texture coordinates ``[F, 3, 2]`` of the faces' corners, and the number of each triangle's texture."""
    lists, number = table.get("texcoord"), table.get("texnumber")
    corners = (table.get(name) for name in _FACES)
    sizes = next((column.sizes for column in corners if isinstance(column, ListColumn)), None)
    if faces is None or sizes is None or not isinstance(lists, ListColumn):
        return None, None
    if (lists.sizes != 2 * sizes).any():
        return None, None
    corner, _ = polygon_fans(sizes)
    numbers = number.astype(np.int64)[faces] if isinstance(number, np.ndarray) else None
    return lists.values.reshape(-1, 2)[corner], numbers


def _columns(table: Table, choices: tuple[tuple[str, ...], ...]) -> NDArray | None:
    """``[N, K]`` of the first choice of names that the table has all of."""
    for names in choices:
        columns = [column for name in names if isinstance(column := table.get(name), np.ndarray)]
        if len(columns) == len(names):
            return np.stack(columns, axis=1).astype(np.float64)
    return None


def _colors(table: Table) -> NDArray | None:
    """``[N, 4]`` sRGB and opacity 0..1, from numbers of 0..255, 0..65535 or 0..1."""
    colors = _columns(table, _COLOR)
    if colors is None:
        return None
    name = next(name for names in _COLOR for name in names if name in table)
    alpha = _columns(table, _ALPHA)
    top = _top(colors, table[name])
    opacity = np.ones((len(colors), 1)) if alpha is None else alpha / top
    return np.nan_to_num(np.concatenate([colors / top, opacity], axis=1)).clip(0, 1)


def _top(values: NDArray, column: Column) -> float:
    """What stands for 1 in a column of colours."""
    if isinstance(column, np.ndarray) and column.dtype.kind in "iu":
        return float(np.iinfo(column.dtype).max)
    return 255.0 if len(values) and np.nanmax(values) > 1 else 1.0


def _textures(names: tuple[str, ...], folder: Path, losses: LossList) -> list[Texture | None]:
    textures: list[Texture | None] = []
    for name in names:
        try:
            textures.append(Texture(decode_texture(read_linked(folder, name))))
        except DiffSplatError as error:
            losses.color(f"its texture {name!r} {error}")
            textures.append(None)
    return textures


def _at(values: NDArray | None, places: NDArray[np.int64]) -> NDArray | None:
    return None if values is None else values[places]
