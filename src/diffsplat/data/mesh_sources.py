"""Meshes to render: where they lie, what they are, who made them; and those of any folder."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffsplat.data.file_name_labels import label_of_file_name
from diffsplat.data.object_labels import Label
from diffsplat.data.shard_schema import Split, split_of
from diffsplat.data.shard_writing import ObjectListing
from diffsplat.errors import InvalidInputError, MissingFileError
from diffsplat.render.meshes.mesh_files import MESH_SUFFIXES, find_meshes, load_mesh, unread_meshes
from diffsplat.render.meshes.triangle_mesh import TriangleMesh

logger = logging.getLogger(__name__)


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


_FEWEST_TO_HOLD_OUT = 3
SourceListing = ObjectListing[SourceObject]
"""The objects of a source; files that are not objects are left out."""


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
        # Old archives have names in other encodings than UTF-8.
        place = os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "backslashreplace")
        stem = os.fsencode(path.stem).decode("utf-8", "ignore")
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem)
        objects.append(
            SourceObject(
                object_id=f"folder/{place}",
                path=path,
                name=re.sub(r"[^A-Za-z]+", " ", words).strip().lower() or "object",
                label=label_of_file_name(stem),
                source="folder",
                license="unknown",
                creator="unknown",
                variants=4,
            )
        )
    unread = Counter(path.suffix.lower() for path in unread_meshes(folder))
    others = "".join(f"; {count} {suffix} left out, convert to .glb" for suffix, count in unread.items())
    if not objects:
        raise InvalidInputError(f"{folder} holds no mesh file, expected {', '.join(MESH_SUFFIXES)}{others}")
    if unread:
        logger.warning("of %s only %s are read%s", folder, ", ".join(MESH_SUFFIXES), others)
    return SourceListing(with_rare_nouns_trained(objects))


def with_rare_nouns_trained(objects: Sequence[SourceObject]) -> tuple[SourceObject, ...]:
    """The objects, of which those of a noun with fewer than three different names may not be held out."""
    names = Counter(noun for noun, _ in {(item.label.noun, item.name) for item in objects})
    return tuple(
        replace(item, may_be_held_out=names[item.label.noun] >= _FEWEST_TO_HOLD_OUT) for item in objects
    )
