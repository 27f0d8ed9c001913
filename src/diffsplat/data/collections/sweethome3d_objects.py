"""The objects of the Sweet Home 3D furniture libraries (CC0 and CC-BY 3.0)."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path, PurePosixPath

from diffsplat.data.mesh_sources import SourceListing, SourceObject
from diffsplat.data.object_labels import Collection, Label, label_of
from diffsplat.errors import InvalidInputError, MissingFileError

_AR_HEADER = 60
"""Bytes before each member of a Debian package, which is an ``ar`` archive."""


def unpack_sweethome3d(source: Path, scratch: Path) -> Path:
    """Unpack all ``.sh3f`` libraries of a Debian package, of a folder with them, or of an unpacked package.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: no library in it.
    """
    if not source.exists():
        raise MissingFileError(f"no such package or folder: {source}")
    if source.is_file():
        _unpack_debian(source, scratch / "package")
        source = scratch / "package"
    libraries = sorted(source.rglob("*.sh3f"))
    if not libraries:
        raise InvalidInputError(
            f"{source} holds no .sh3f library, expected the sweethome3d-furniture package"
        )
    for library in libraries:
        target = scratch / library.stem
        if not (target / ".complete").exists():
            with zipfile.ZipFile(library) as archive:
                archive.extractall(target)
            (target / ".complete").touch()
    return scratch


def _unpack_debian(package: Path, target: Path) -> None:
    """The files of a Debian package: those of the ``data.tar`` inside."""
    data = package.read_bytes()
    if not data.startswith(b"!<arch>\n"):
        raise InvalidInputError(f"{package} is not a Debian package (no ar archive)")
    start = 8 + _AR_HEADER
    while start <= len(data):
        header = data[start - _AR_HEADER : start]
        size = int(header[48:58])
        if header.startswith(b"data.tar"):
            with tarfile.open(fileobj=io.BytesIO(data[start : start + size])) as archive:
                archive.extractall(target, filter="data")
            return
        start += size + size % 2 + _AR_HEADER
    raise InvalidInputError(f"{package} holds no data.tar, expected a Debian package")


def sweethome3d_objects(folder: Path) -> SourceListing:
    """The objects of unpacked libraries: one subfolder per library.

    Raises:
        ValueError: it holds none.
    """
    collection = Collection.load("sweethome3d")
    objects, left_out = [], []
    for catalogue in sorted(folder.glob("*/PluginFurnitureCatalog.properties")):
        library, entries = read_catalogue(catalogue)
        for _, entry in sorted(entries.items()):
            tags = tuple(tag.strip() for tag in entry.get("tags", "").split(","))
            tags = tuple(tag for tag in tags if tag and tag not in collection.ignored_tags)
            label = sweethome3d_label(entry["name"], tags, entry.get("category", ""))
            if label is None:
                left_out.append(f"{_place(catalogue.parent, entry)} ({entry['name']})")
            else:
                objects.append(_object(catalogue.parent, library, entry, label, tags))
    if not objects:
        raise InvalidInputError(
            f"{folder} holds no Sweet Home 3D catalogue, expected */PluginFurnitureCatalog.properties"
        )
    return SourceListing(tuple(objects), tuple(left_out))


def sweethome3d_label(name: str, tags: tuple[str, ...], category: str) -> Label | None:
    """The label of a catalogue entry, None when it is no object."""
    collection = Collection.load("sweethome3d")
    key = name.lower().strip()
    if category in collection.skipped_categories or collection.is_skipped(key):
        return None
    if key in ("bamboo", "ficus") and {"Tree", "Outdoor"} <= set(tags):
        return label_of(f"{key} tree", "tree")
    if key.endswith((" plug", " switch")):
        return label_of("wall socket" if key.endswith("plug") else "light switch")
    if "Tree" in tags and key not in collection.phrases and not re.search(r"tree|hedge|^bush$", key):
        return label_of(f"{key} tree", "tree")
    return collection.label(key, " ".join(collection.without_ignored(key.split())))


def _place(folder: Path, entry: dict[str, str]) -> str:
    return f"{folder.name}/{entry['model'].lstrip('/')}"


def _object(
    folder: Path, library: dict[str, str], entry: dict[str, str], label: Label, tags: tuple[str, ...]
) -> SourceObject:
    collection = Collection.load("sweethome3d")
    rotation = None
    if "modelRotation" in entry:
        values = [float(value) for value in entry["modelRotation"].split()]
        rotation = tuple(tuple(values[i : i + 3]) for i in (0, 3, 6))
    return SourceObject(
        object_id=f"sweethome3d/{_place(folder, entry)}",
        path=folder / PurePosixPath(entry["model"].lstrip("/")),
        name=f"{folder.name} {entry['name'].lower()}",
        label=replace(label, colored="Human" not in tags),
        source=f"{collection.source} {library.get('name', folder.name)}",
        license=_license(library.get("license", collection.license)),
        creator=entry.get("creator", collection.creator),
        tags=tuple(tag.lower() for tag in tags),
        rotation=rotation,
        extent=(float(entry["width"]), float(entry["height"]), float(entry["depth"])),
        variants=0 if entry.get("category") in collection.people else 4,
    )


def _license(text: str) -> str:
    """The SPDX identifier of a library's licence, or its text where it is none of the known ones."""
    if text.lower().startswith("public domain"):
        return "CC0-1.0"
    if "3.0" in text and ("Attribution" in text or "Creative Commons" in text):
        return "CC-BY-3.0-US" if "Attribution" in text and "United States" in text else "CC-BY-3.0"
    return text


def read_catalogue(path: Path) -> tuple[dict[str, str], dict[int, dict[str, str]]]:
    """A catalogue (Java properties): the library's own fields, and each entry's by number."""
    library: dict[str, str] = {}
    entries: dict[int, dict[str, str]] = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        if line.startswith("#") or "=" not in line:
            continue
        key, _, value = line.partition("=")
        value = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), value.strip())
        name, _, number = key.strip().partition("#")
        if number.isdigit():
            entries.setdefault(int(number), {})[name] = value
        elif not number:
            library[name] = value
    return library, entries
