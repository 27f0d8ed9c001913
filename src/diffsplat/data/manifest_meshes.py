"""The meshes of a manifest."""

from __future__ import annotations

from pathlib import Path

from diffsplat.data.mesh_sources import SourceListing, SourceObject, with_rare_nouns_trained
from diffsplat.data.object_labels import label_of
from diffsplat.data.object_manifest import ManifestEntry, read_manifest
from diffsplat.errors import InvalidInputError
from diffsplat.render.meshes.mesh_files import find_meshes


def manifest_objects(folder: Path, manifest: str, collection: str) -> SourceListing:
    """The objects of a manifest, their meshes below ``folder``; meshes that it does not list are left out.

    Args:
        folder: searched for the first of the manifest's files, whose place says where the others are.
        manifest, collection: see :func:`~diffsplat.data.object_manifest.read_manifest`.

    Raises:
        ValueError: as for reading a manifest, or none of its files is there.
    """
    entries = read_manifest(folder, manifest, collection)
    root = _root(folder, entries, manifest)
    objects = tuple(_object(root, entry) for entry in entries)
    spared = with_rare_nouns_trained(objects)
    objects = tuple(
        item if entry.key else other for entry, item, other in zip(entries, objects, spared, strict=True)
    )
    listed = {item.path for item in objects}
    left_out = (path for path in find_meshes(root) if path not in listed)
    return SourceListing(objects, tuple(path.relative_to(root).as_posix() for path in left_out))


def _root(folder: Path, entries: list[ManifestEntry], manifest: str) -> Path:
    """The folder that the manifest's files are relative to."""
    wanted = {entry.file for entry in entries}
    depths = {file: len(Path(file).parts) for file in wanted}
    for path in find_meshes(folder):
        parts = path.relative_to(folder).parts
        for depth in set(depths.values()):
            if "/".join(parts[-depth:]) in wanted:
                return path.parents[depth - 1]
    raise InvalidInputError(f"{str(folder)!r} holds no object of the manifest {manifest!r}")


def _object(root: Path, entry: ManifestEntry) -> SourceObject:
    people = entry.category == "people"
    pack = entry.pack.replace("_", " ")
    turn = entry.rotation
    return SourceObject(
        object_id=f"{entry.collection}/{entry.file}",
        path=root / entry.file,
        name=entry.key or f"{entry.collection} {entry.pack} {entry.phrase}",
        label=label_of(
            entry.phrase,
            entry.noun or None,
            entry.material,
            colored=not people if entry.colored is None else entry.colored,
        ),
        source=entry.source or f"{entry.author.split(' (')[0]} {pack}".strip(),
        license=entry.licence,
        license_basis=entry.licence_basis,
        creator=entry.author,
        tags=entry.tags,
        rotation=None if turn is None else tuple(turn[start : start + 3] for start in (0, 3, 6)),
        extent=entry.extent,
        nodes=entry.nodes,
        variants=(0 if people else 4) if entry.repaints is None else entry.repaints,
    )
