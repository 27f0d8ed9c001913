"""Meshes to render: where they lie, what they are, who made them; and those of any folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffsplat.data.object_labels import Label
from diffsplat.data.shard_schema import Split, split_of
from diffsplat.data.shard_writing import ObjectListing
from diffsplat.errors import InvalidInputError, MissingFileError
from diffsplat.render.meshes.mesh_files import find_meshes, load_mesh
from diffsplat.render.meshes.triangle_mesh import TriangleMesh


@dataclass(frozen=True)
class SourceObject:
    """One mesh to render.

    Args:
        object_id: unique and stable, ``source/path``.
        path: the mesh file.
        name: key of the split.
        label: what it is.
        source, license, creator: for the credits.
        tags: words of the source about it.
        rotation: ``[3, 3]`` applied first, as nested tuples; None for none.
        extent: width, height, depth that the bounding box gets; None keeps the file's.
        nodes: prefix of the scene nodes that belong to the object, empty for all.
        variants: how many repainted versions to make at most.
        license_basis: how the licence is known.
        may_be_held_out: whether the split may hold it out of training.
    """

    object_id: str
    path: Path
    name: str
    label: Label
    source: str
    license: str
    creator: str
    tags: tuple[str, ...] = ()
    rotation: tuple[tuple[float, ...], ...] | None = None
    extent: tuple[float, float, float] | None = None
    nodes: str = ""
    variants: int = 0
    license_basis: str = ""
    may_be_held_out: bool = True

    @property
    def split(self) -> Split:
        """Whether it is trained with or held out."""
        return split_of(self.name) if self.may_be_held_out else "train"

    def load(self) -> TriangleMesh:
        """The mesh, turned to the front, in its true proportions, centred and scaled to the conventions."""
        mesh = load_mesh(self.path, nodes=self.nodes)
        if self.rotation is not None:
            mesh = mesh.transformed(_matrix(np.array(self.rotation)))
        if self.extent is not None:
            low, high = mesh.bounds()
            size = high - low
            scale = np.where(size > 1e-9, np.array(self.extent) / np.maximum(size, 1e-9), 1.0)
            mesh = mesh.transformed(_matrix(np.diag(scale)))
        return mesh.normalized()


SourceListing = ObjectListing[SourceObject]
"""The objects of a source; what is no object is left out."""


def _matrix(linear: NDArray[np.floating]) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    return matrix


def folder_objects(folder: Path) -> SourceListing:
    """Every mesh file below ``folder``; names come from the file names.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no mesh file.
    """
    if not folder.is_dir():
        raise MissingFileError(f"no such folder of meshes: {folder}")
    objects = []
    for path in find_meshes(folder):
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", path.stem)
        words = re.sub(r"[^A-Za-z]+", " ", words).strip().lower() or "object"
        objects.append(
            SourceObject(
                f"folder/{path.relative_to(folder).as_posix()}",
                path,
                words,
                Label(words.split()[-1], words),
                "folder",
                "unknown",
                "unknown",
            )
        )
    if not objects:
        raise InvalidInputError(
            f"{folder} holds no mesh file, expected .glb, .gltf, .obj, .ply, .stl or .off"
        )
    return SourceListing(tuple(objects))
