"""Wavefront OBJ meshes."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import DiffSplatError, InvalidInputError
from diffsplat.render.meshes.linked_files import read_linked
from diffsplat.render.meshes.mesh_text import decoded, number_rows, statements
from diffsplat.render.meshes.mtl_materials import (
    MtlDescription,
    MtlMaterial,
    read_descriptions,
    read_material,
)
from diffsplat.render.meshes.polygon_triangles import polygon_triangles, within
from diffsplat.render.meshes.triangle_mesh import (
    UNPAINTED_MATERIAL,
    DoubleArray,
    LossList,
    Material,
    MeshPart,
)

_MISSING = -1
_FREE_FORM = (b"curv", b"curv2", b"surf")
_INTEGER = re.compile(rb"[+-]?[0-9]{1,18}")
_NO_MATERIAL = (None, "", "None", "(null)")


@dataclass
class _Group:
    """Faces with one material: sizes of the faces, and numbers ``[C, 3]`` of their corners' v, vt and vn."""

    sizes: list[int] = field(default_factory=list)
    corners: list[NDArray[np.int64]] = field(default_factory=list)


@dataclass
class _Contents:
    """What the lines of a file hold."""

    vectors: dict[bytes, list[bytes]] = field(default_factory=lambda: {b"v": [], b"vt": [], b"vn": []})
    groups: dict[str | None, _Group] = field(default_factory=dict)
    materials: dict[str, MtlDescription] = field(default_factory=dict)
    others: int = 0


def read_obj(data: bytes, folder: Path, losses: LossList) -> list[MeshPart]:
    """The parts of an OBJ file in ``folder``, one for each material."""
    contents = _contents(data, folder, losses)
    if contents.others:
        losses.part(f"{contents.others} free-form curves and surfaces are not read")
    vertices, uv, normals = (
        number_rows([rest.split() for rest in contents.vectors[keyword]], width)
        for keyword, width in ((b"v", 6), (b"vt", 2), (b"vn", 3))
    )
    colors = _vertex_colors(vertices[:, 3:])
    tables = vertices[:, :3], uv, normals
    return [
        _part(group, _material(name, contents.materials, losses), tables, colors, losses)
        for name, group in contents.groups.items()
        if max(group.sizes, default=0) >= 3
    ]


def _contents(data: bytes, folder: Path, losses: LossList) -> _Contents:
    contents = _Contents()
    group = contents.groups.setdefault(None, _Group())
    faces: list[bytes] = []
    for keyword, rest in statements(data):
        if keyword in (b"f", b"fo"):
            faces.append(rest)
            continue
        if faces and keyword in (b"v", b"vt", b"vn", b"usemtl"):
            _add_faces(group, faces, contents)
            faces = []
        if keyword in contents.vectors:
            contents.vectors[keyword].append(rest)
        elif keyword == b"usemtl":
            group = contents.groups.setdefault(decoded(rest), _Group())
        elif keyword == b"mtllib":
            contents.materials.update(_library(decoded(rest), folder, losses))
        elif keyword in _FREE_FORM:
            contents.others += 1
    _add_faces(group, faces, contents)
    return contents


def _add_faces(group: _Group, faces: list[bytes], contents: _Contents) -> None:
    """Add consecutive faces, so that indices from the end mean the same in all."""
    words = [face.partition(b"#")[0].split() for face in faces]
    group.sizes += map(len, words)
    numbers = _corner_numbers([word for row in words for word in row])
    counts = [len(rows) for rows in contents.vectors.values()]
    group.corners.append(
        np.where(numbers > 0, numbers - 1, np.where(numbers < 0, numbers + counts, _MISSING))
    )


def _corner_numbers(words: list[bytes]) -> NDArray[np.int64]:
    """``[C, 3]`` numbers of v, vt and vn as they are written, 0 for those that are left out or none."""
    slashes = {word.count(b"/") for word in words}
    if len(slashes) == 1 and (width := slashes.pop() + 1) <= 3:
        text = b" ".join(words).replace(b"//", b"/0/").replace(b"/", b" ").split()
        with suppress(ValueError, OverflowError):  # a word is not a number
            if len(text) == len(words) * width:
                flat = np.array(text, dtype=np.bytes_).astype(np.int64)
                return np.pad(flat.reshape(-1, width), ((0, 0), (0, 3 - width)))
    rows = [[int(n) if _INTEGER.fullmatch(n) else 0 for n in word.split(b"/")[:3]] for word in words]
    return np.array([[*row, 0, 0][:3] for row in rows], dtype=np.int64).reshape(-1, 3)


def _library(text: str, folder: Path, losses: LossList) -> dict[str, MtlDescription]:
    """The materials of an ``mtllib`` statement: one name that may hold blanks, or several names."""
    try:
        beside = (folder / text.replace("\\", "/")).parent
        return read_descriptions(
            read_linked(text, folder), *(place for place in (beside, folder) if place.is_dir())
        )
    except DiffSplatError as error:
        names = text.split()
        if len(names) < 2:
            losses.color(f"its material file {text!r} {error}")
            return {}
    materials: dict[str, MtlDescription] = {}
    for name in names:
        materials.update(_library(name, folder, losses))
    return materials


def _material(name: str | None, known: dict[str, MtlDescription], losses: LossList) -> MtlMaterial:
    for spelling in (name, str(name).partition("#")[0].strip()):
        if spelling in known:
            return read_material(known[spelling], losses)
    if name not in _NO_MATERIAL:
        losses.color(f"its material {name!r} is missing")
    return MtlMaterial(UNPAINTED_MATERIAL)


def _part(
    group: _Group,
    found: MtlMaterial,
    tables: tuple[DoubleArray, ...],
    colors: DoubleArray | None,
    losses: LossList,
) -> MeshPart:
    places = np.concatenate(group.corners)
    points = _looked_up(tables[0], places[:, 0])
    if points is None:
        raise InvalidInputError("its faces refer to vertices that it lacks")
    corner, _ = polygon_triangles(np.array(group.sizes, dtype=np.int64), points)
    places = places[corner]
    places = places[within(places[..., 0], len(tables[0]), losses)]
    uv, normals = (_looked_up(table, places[..., slot]) for slot, table in ((1, tables[1]), (2, tables[2])))
    if uv is not None:
        uv = np.where(np.isfinite(uv), uv, 0.0) * found.uv_scale + found.uv_offset
    material, vertex_colors = found.material, None
    if colors is not None:
        vertex_colors = colors[places[..., 0]]
        material = Material() if material is UNPAINTED_MATERIAL else material
    return MeshPart(tables[0][places[..., 0]], material, normals, uv, vertex_colors)


def _looked_up(table: DoubleArray, places: NDArray[np.int64]) -> DoubleArray | None:
    """Rows of ``table``, NaN where a place lies outside; None when all do."""
    inside = (places >= 0) & (places < len(table))
    if not inside.any():
        return None
    return np.where(inside[..., None], table[np.where(inside, places, 0)], np.nan)


def _vertex_colors(rows: DoubleArray) -> DoubleArray | None:
    """``[N, 4]`` sRGB of the numbers ``[N, 3]`` behind the position, r g b in 0..1 or 0..255; white for NaN."""
    given = np.asarray(np.isfinite(rows).all(axis=1))
    if not given.any():
        return None
    top = 255 if rows[given].max() > 1 else 1
    colors = np.where(given[:, None], rows / top, 1.0).clip(0, 1)
    return np.concatenate([colors, np.ones((len(rows), 1))], axis=1)
