"""The objects of the KayKit packs (Kay Lousberg, CC0)."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

from diffsplat.data.mesh_sources import SourceListing, SourceObject
from diffsplat.data.object_labels import Collection, Label
from diffsplat.errors import InvalidInputError, MissingFileError
from diffsplat.images.color_words import COLOR_WORDS
from diffsplat.render.meshes.mesh_files import find_meshes


def unpack_kaykit(source: Path, scratch: Path) -> Path:
    """The folder of packs: ``source`` itself, or its contents when it is a tar archive.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: the file is no tar archive.
    """
    if source.is_dir():
        return source
    if not source.is_file():
        raise MissingFileError(f"no such archive or folder: {source}")
    try:
        with tarfile.open(source) as archive:
            archive.extractall(scratch, filter="data")
    except tarfile.TarError as error:
        raise InvalidInputError(f"{source} is not a readable tar archive: {error}") from error
    return scratch


def kaykit_objects(folder: Path) -> SourceListing:
    """The objects of the packs below ``folder``.

    Raises:
        ValueError: it holds none.
    """
    collection = Collection.load("kaykit")
    objects, left_out = [], []
    for path in (p for p in find_meshes(folder) if p.suffix in (".gltf", ".glb")):
        place = path.relative_to(folder).as_posix()
        label = kaykit_label(_stem(path))
        if label is None:
            left_out.append(place)
        else:
            objects.append(_object(path, place, label, collection))
    if not objects:
        raise InvalidInputError(f"{folder} holds no KayKit object, expected the packs' .gltf and .glb files")
    return SourceListing(tuple(objects), tuple(left_out))


def kaykit_label(stem: str) -> Label | None:
    """The label of a file (its name without suffixes), None when it is no object."""
    collection = Collection.load("kaykit")
    return None if collection.is_skipped(stem) else collection.label(kaykit_key(stem))


def kaykit_key(stem: str) -> str:
    """The name shared by all sizes, colours and versions of an object."""
    words = [
        word
        for word in Collection.load("kaykit").without_ignored(stem.lower().split("_"))
        if not re.fullmatch(r"[a-h]|\d+", word)
    ]
    if len(words) > 1 and words[0] == "building" and words[1] != "withoutbase":
        words = words[1:]
    return " ".join(words) or stem.lower()


def _object(path: Path, place: str, label: Label, collection: Collection) -> SourceObject:
    stem = _stem(path)
    character = stem.lower() in collection.people
    colored_already = not {*COLOR_WORDS, "gold"}.isdisjoint(stem.split("_"))
    return SourceObject(
        object_id=f"kaykit/{place}",
        path=path,
        name=f"kaykit {kaykit_key(stem)}",
        label=label,
        source=f"{collection.source} {_pack(path)}",
        license=collection.license,
        creator=collection.creator,
        nodes=stem.split("_")[0] + "_" if character else "",
        variants=0 if character else 2 if colored_already else 4,
    )


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _pack(path: Path) -> str:
    return re.sub(r"-\d.*$", "", path.parent.name).replace("-", " ")
