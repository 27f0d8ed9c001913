"""Manifests: JSON lists of a collection's objects, with what they are and who made them.

An object is ``{"file": ..., "phrase": ..., ...}`` with the fields of :class:`ManifestEntry`; others are ignored.
``{"objects": [...], ...}`` is a group whose other fields hold for all its objects; groups may be nested.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import read_bytes

BUILT_IN = ("kaykit", "sweethome3d")


@dataclass(frozen=True, kw_only=True)
class ManifestEntry:
    """One object of a manifest.

    Args:
        file: of the mesh, below the folder of the collection.
        phrase: what it is, without colour or article: ``round table``.
        noun: the plain noun; by default that of the phrase.
        material: a word such as ``wooden`` for captions; painted objects lose it.
        category: only ``people`` means anything: they are not repainted and captions name no colours of them.
        colored: whether captions name its colours.
        repaints: how many repainted versions to make at most.
        tags: more words about it.
        key: objects of one key are held out of training together; without it, those of one phrase in one pack.
        collection: first part of the object's identity, by default the name of the archive.
        pack: part of the collection.
        source: what the credits call its origin, by default author and pack.
        author, licence: for the credits; the licence as an SPDX identifier.
        licence_basis: how the licence is known: ``text`` beside the files, ``stated`` by the author elsewhere.
        nodes: prefix of the scene nodes that belong to it, empty for all.
        rotation: nine numbers, row by row, applied first.
        extent: width, height and depth that its bounding box gets.
    """

    file: str
    phrase: str
    noun: str = ""
    material: str = ""
    category: str = ""
    colored: bool | None = None
    repaints: int | None = None
    tags: tuple[str, ...] = ()
    key: str = ""
    collection: str
    pack: str = ""
    source: str = ""
    author: str = "unknown"
    licence: str = "unknown"
    licence_basis: str = ""
    nodes: str = ""
    rotation: tuple[float, ...] | None = None
    extent: tuple[float, float, float] | None = None


def read_manifest(folder: Path, manifest: str, collection: str) -> list[ManifestEntry]:
    """The entries of a manifest.

    Args:
        folder: of the collection.
        manifest: path of a JSON file, on disk or anywhere in ``folder``, or one of ``BUILT_IN``.
        collection: name of the collection where the manifest gives none.

    Raises:
        ValueError: there is no such manifest, or it is not of this form.
    """
    inside = sorted(folder.rglob(manifest)) if manifest and not Path(manifest).is_absolute() else []
    path = next((path for path in (Path(manifest), *inside) if path.is_file()), None)
    if path is not None:
        data = read_bytes(path)
    elif manifest in BUILT_IN:
        data = _built_in(manifest)
    else:
        raise InvalidInputError(
            f"no manifest {manifest!r}, expected a JSON file on disk or in {str(folder)!r}, or one of: "
            f"{', '.join(BUILT_IN)}"
        )
    try:
        entries = [_entry(values) for values in _flat(json.loads(data), {"collection": collection})]
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"cannot read the manifest {manifest!r}: {error}") from error
    repeated = [file for file, count in Counter(entry.file for entry in entries).items() if count > 1]
    if repeated or not entries:
        fault = f"lists {repeated[0]!r} twice" if repeated else "lists no object"
        raise InvalidInputError(f"the manifest {manifest!r} {fault}")
    return entries


def built_in_phrases() -> frozenset[str]:
    """The phrases of all objects of the manifests that come with the package."""
    return frozenset(
        values["phrase"] for name in BUILT_IN for values in _flat(json.loads(_built_in(name)), {})
    )


def _built_in(name: str) -> bytes:
    return files("diffsplat.data.collection_manifests").joinpath(f"{name}.json").read_bytes()


def _flat(node: Any, common: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object with the fields of the groups that it is in."""
    node = {"objects": node} if isinstance(node, list) else node
    if not isinstance(node, dict):
        raise InvalidInputError(f"it holds {node!r}, expected JSON objects")
    values = {**common, **node}
    children = values.pop("objects", None)
    if children is None:
        yield values
    elif isinstance(children, list):
        for child in children:
            yield from _flat(child, values)
    else:
        raise InvalidInputError("its objects are not a list")


def _entry(values: dict[str, Any]) -> ManifestEntry:
    known = {field.name: field for field in fields(ManifestEntry)}
    chosen = {name: value for name, value in values.items() if name in known}
    for name in ("file", "phrase"):
        if not chosen.get(name):
            raise InvalidInputError(f"{values!r} has no {name}")
    for name, value in chosen.items():
        if not _FORMS[name](value):
            raise InvalidInputError(f"{name} of {values['file']!r} is {value!r}")
        if isinstance(value, list):
            chosen[name] = tuple(value)
    if ".." in Path(chosen["file"]).parts or Path(chosen["file"]).is_absolute():
        raise InvalidInputError(f"the file {chosen['file']!r} is outside the collection")
    return ManifestEntry(**chosen)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_numbers(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(type(v) in (int, float) for v in value)


_FORMS = {
    **dict.fromkeys((field.name for field in fields(ManifestEntry)), _is_text),
    "colored": lambda value: isinstance(value, bool),
    "repaints": lambda value: type(value) is int and value >= 0,
    "tags": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "rotation": lambda value: _is_numbers(value, 9),
    "extent": lambda value: _is_numbers(value, 3),
}
