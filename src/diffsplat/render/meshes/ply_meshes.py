"""PLY meshes: text and binary, polygons and triangle strips, colours of vertices and faces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import DiffSplatError, InvalidInputError
from diffsplat.render.meshes.linked_files import read_linked
from diffsplat.render.meshes.ply_tables import Column, ListColumn, Table, read_tables
from diffsplat.render.meshes.polygon_triangles import polygon_triangles, strip_triangles, within
from diffsplat.render.meshes.texture_images import decode_texture
from diffsplat.render.meshes.triangle_mesh import UNPAINTED_MATERIAL, LossList, Material, MeshPart, Texture

_POSITION = (("x", "y", "z"),)
_NORMAL = (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z"))
_UV = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"))
_COLOR = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
_ALPHA = (("alpha",), ("diffuse_alpha",), ("a",))
_FACES = ("vertex_indices", "vertex_index", "vertices")


@dataclass(frozen=True)
class _Surface:
    """Triangles of a file.

    Args:
        vertices: ``[F, 3]`` numbers of their vertices.
        faces: ``[F]`` rows of the table of faces; None for strips.
        wedges: ``[F, 3]`` their corners' places in the joined lists of the faces; None for strips.
    """

    vertices: NDArray[np.int64]
    faces: NDArray[np.int64] | None = None
    wedges: NDArray[np.int64] | None = None

    def subset(self, chosen: NDArray[np.bool_]) -> _Surface:
        """Some of the triangles."""
        rest = (None if values is None else values[chosen] for values in (self.faces, self.wedges))
        return _Surface(self.vertices[chosen], *rest)


def read_ply(data: bytes, folder: Path, losses: LossList) -> list[MeshPart]:
    """The parts of a PLY file in ``folder``, one for each texture.

    Raises:
        ValueError: it is broken, or holds no surface.
    """
    file = read_tables(data)
    vertices, faces = file.tables.get("vertex", {}), file.tables.get("face", {})
    positions = _columns(vertices, _POSITION)
    if positions is None:
        raise InvalidInputError("its vertices have no x, y, z")
    surface = _surface(file.tables, positions)
    if surface is None:
        kind = "Gaussian splats" if "f_dc_0" in vertices else "a point cloud"
        raise InvalidInputError(f"it is {kind}, expected a mesh with faces")
    surface = surface.subset(within(surface.vertices, len(positions), losses))
    number = _texture_numbers(faces, surface)
    textures = _textures(file.textures, folder, losses)
    return [
        _part(vertices, faces, surface.subset(number == index), _at(textures, index))
        for index in np.unique(number)
    ]


def _part(vertices: Table, faces: Table, surface: _Surface, texture: Texture | None) -> MeshPart:
    """The triangles that share a texture."""
    uv = _wedge_uv(faces, surface)
    if uv is None and (vertex_uv := _columns(vertices, _UV)) is not None:
        uv = vertex_uv[surface.vertices]
    colors = _colors(vertices)
    if texture is not None and uv is not None:
        colors = None  # scanners write the same colours twice
    elif colors is not None:
        colors = colors[surface.vertices]
    elif surface.faces is not None and (face_colors := _colors(faces)) is not None:
        colors = np.repeat(face_colors[surface.faces, None], 3, axis=1)
    if colors is not None:
        material = Material()
    else:
        unseen = texture is None or uv is None
        material = replace(UNPAINTED_MATERIAL if unseen else Material(), texture=texture)
    positions, normals = _columns(vertices, _POSITION), _columns(vertices, _NORMAL)
    assert positions is not None
    return MeshPart(
        positions[surface.vertices],
        material,
        None if normals is None else normals[surface.vertices],
        uv,
        colors,
    )


def _surface(tables: dict[str, Table], positions: NDArray[np.float64]) -> _Surface | None:
    for name in _FACES:
        lists = tables.get("face", {}).get(name)
        if isinstance(lists, ListColumn) and len(lists.sizes):
            numbers = lists.values.astype(np.int64)
            points = positions[numbers.clip(0, len(positions) - 1)]
            wedges, faces = polygon_triangles(lists.sizes, points)
            return _Surface(numbers[wedges], faces, wedges)
        strips = tables.get("tristrips", {}).get(name)
        if isinstance(strips, ListColumn):
            ends = np.cumsum(strips.sizes)[:-1]
            return _Surface(strip_triangles(np.insert(strips.values.astype(np.int64), ends, -1), -1))
    return None


def _wedge_uv(faces: Table, surface: _Surface) -> NDArray | None:
    """``[F, 3, 2]`` texture coordinates that the faces have for each of their corners."""
    lists = faces.get("texcoord")
    corners = next((faces[name] for name in _FACES if name in faces), None)
    if surface.wedges is None or not isinstance(lists, ListColumn) or not isinstance(corners, ListColumn):
        return None
    fitting = lists.sizes == 2 * corners.sizes
    if not fitting.any():
        return None
    uv = np.zeros((len(corners.values), 2))  # also of faces without a texture
    uv[np.repeat(fitting, corners.sizes)] = lists.values[np.repeat(fitting, lists.sizes)].reshape(-1, 2)
    return uv[surface.wedges]


def _texture_numbers(faces: Table, surface: _Surface) -> NDArray[np.int64]:
    """``[F]`` place of each triangle's texture among those of the file."""
    numbers = faces.get("texnumber")
    if surface.faces is None or not isinstance(numbers, np.ndarray):
        return np.zeros(len(surface.vertices), dtype=np.int64)
    return numbers.astype(np.int64)[surface.faces]


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
    opacity = np.ones((len(colors), 1)) if alpha is None or not alpha.any() else alpha / top
    return np.nan_to_num(np.concatenate([colors / top, opacity], axis=1)).clip(0, 1)


def _top(values: NDArray, column: Column) -> float:
    """What stands for 1 in a column of colours."""
    if isinstance(column, np.ndarray) and column.dtype.kind in "iu" and column.dtype.itemsize < 4:
        return float(np.iinfo(column.dtype).max)
    return 255.0 if len(values) and np.nanmax(values) > 1 else 1.0


def _textures(names: tuple[str, ...], folder: Path, losses: LossList) -> list[Texture | None]:
    textures: list[Texture | None] = []
    for name in names:
        try:
            textures.append(Texture(decode_texture(read_linked(name, folder))))
        except DiffSplatError as error:
            losses.color(f"its texture {name!r} {error}")
            textures.append(None)
    return textures


def _at(textures: list[Texture | None], index: int) -> Texture | None:
    return textures[index] if 0 <= index < len(textures) else None
