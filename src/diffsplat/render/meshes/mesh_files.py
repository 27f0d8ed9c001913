"""Mesh files of any format, read as textured triangles."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from diffsplat.errors import DiffSplatError, InvalidInputError
from diffsplat.io.file_access import read_bytes
from diffsplat.render.meshes.gltf_meshes import read_gltf
from diffsplat.render.meshes.obj_meshes import read_obj
from diffsplat.render.meshes.off_meshes import read_off
from diffsplat.render.meshes.ply_meshes import read_ply
from diffsplat.render.meshes.stl_meshes import read_stl
from diffsplat.render.meshes.triangle_mesh import LossList, MeshPart, TriangleMesh, joined_parts

MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
_STARTS = {b"glTF": ".glb", b"ply\n": ".ply", b"ply\r": ".ply"}
"""First bytes of formats that have a mark, whatever the suffix."""
_UNREAD_SUFFIXES = (
    *(".3ds", ".3mf", ".abc", ".blend", ".dae", ".fbx", ".lwo", ".max", ".step", ".stp", ".usd", ".usda"),
    *(".usdc", ".usdz", ".vrm", ".wrl", ".x3d"),
)


def load_mesh(path: Path, *, nodes: str = "") -> TriangleMesh:
    """Read a mesh of any format in ``MESH_SUFFIXES``.

    Args:
        path: the file; what it refers to is looked for beside it.
        nodes: of a glTF file, only nodes whose name starts with this.

    Returns:
        The triangles, in double precision, with what was lost of the file.

    Raises:
        ValueError: the file holds no triangle or cannot be read.
    """
    data = read_bytes(path)
    if not data:
        raise InvalidInputError(f"{str(path)!r}: it is empty")
    losses = LossList()
    try:
        with np.errstate(all="ignore"):  # numbers that are not finite are sorted out at the end
            return joined_parts(_parts(path, data, losses, nodes), losses)
    except DiffSplatError as error:
        raise InvalidInputError(f"{str(path)!r}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # a broken file may put anything anywhere
        raise InvalidInputError(f"{str(path)!r}: is broken, or no {path.suffix.lower()} file") from error


def _parts(path: Path, data: bytes, losses: LossList, nodes: str) -> list[MeshPart]:
    folder = path.parent
    marked = next((suffix for start, suffix in _STARTS.items() if data.startswith(start)), None)
    match marked or path.suffix.lower():
        case ".glb" | ".gltf":
            return read_gltf(data, folder, losses, nodes=nodes)
        case ".obj":
            return read_obj(data, folder, losses)
        case ".ply":
            return read_ply(data, folder, losses)
        case ".stl":
            return read_stl(data, losses)
        case ".off":
            return read_off(data, losses)
        case suffix:
            raise InvalidInputError(f"has the suffix {suffix!r}, expected {', '.join(MESH_SUFFIXES)}")


def find_meshes(folder: Path) -> Iterable[Path]:
    """All mesh files below ``folder``, sorted by path; hidden files, such as macOS adds, are left out."""
    return _files(folder, MESH_SUFFIXES)


def unread_meshes(folder: Path) -> Iterable[Path]:
    """Files below ``folder`` of formats for meshes that are not read."""
    return _files(folder, _UNREAD_SUFFIXES)


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and not path.is_dir()
    )
