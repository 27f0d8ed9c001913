"""The objects of a source: files, names, licences. Folders, KayKit packs and Sweet Home 3D libraries."""

from __future__ import annotations

import re
import tarfile
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from diffsplat.data.caption_phrases import Label
from diffsplat.data.object_nouns import kaykit_key, kaykit_label, sweethome3d_label
from diffsplat.errors import InvalidInputError, MissingFileError
from diffsplat.render.meshes.mesh_files import TriangleMesh, find_meshes, load_mesh

_COLOR_IN_NAME = re.compile(
    r"(^|_)(red|orange|yellow|green|blue|purple|pink|brown|black|white|grey|gold)(_|$)"
)
_CHARACTERS = {"barbarian", "knight", "mage", "rogue", "rogue_hooded"}


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


@dataclass(frozen=True)
class SourceListing:
    """All objects of a source, and the names that were left out because they are no objects."""

    objects: tuple[SourceObject, ...]
    left_out: tuple[str, ...] = field(default=())


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
    """The objects of the KayKit packs below ``folder`` (Kay Lousberg, CC0)."""
    objects, left_out = [], []
    for path in (p for p in find_meshes(folder) if p.suffix in (".gltf", ".glb")):
        stem = path.name.split(".")[0]
        place = path.relative_to(folder).as_posix()
        label = kaykit_label(stem)
        if label is None:
            left_out.append(place)
            continue
        character = stem.lower() in _CHARACTERS
        variants = 0 if character else 2 if _COLOR_IN_NAME.search(stem) else 4
        objects.append(
            SourceObject(
                f"kaykit/{place}",
                path,
                f"kaykit {kaykit_key(stem)}",
                label,
                "KayKit " + _pack(path),
                "CC0-1.0",
                "Kay Lousberg (kaylousberg.com)",
                nodes=stem.split("_")[0] + "_" if character else "",
                variants=variants,
            )
        )
    if not objects:
        raise InvalidInputError(f"{folder} holds no KayKit object, expected the packs' .gltf and .glb files")
    return SourceListing(tuple(objects), tuple(left_out))


def _pack(path: Path) -> str:
    return re.sub(r"-\d.*$", "", path.parent.name).replace("-", " ")


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
    """The files of a Debian package: an ``ar`` archive with a ``data.tar`` inside."""
    data = package.read_bytes()
    if not data.startswith(b"!<arch>\n"):
        raise InvalidInputError(f"{package} is not a Debian package (no ar archive)")
    position = 8
    while position + 60 <= len(data):
        name, size = (
            data[position : position + 16].decode("ascii").strip(),
            int(data[position + 48 : position + 58]),
        )
        if name.startswith("data.tar"):
            import io

            with tarfile.open(fileobj=io.BytesIO(data[position + 60 : position + 60 + size])) as archive:
                archive.extractall(target, filter="data")
            return
        position += 60 + size + size % 2
    raise InvalidInputError(f"{package} holds no data.tar, expected a Debian package")


def sweethome3d_objects(folder: Path) -> SourceListing:
    """The objects of unpacked Sweet Home 3D libraries: one subfolder per library."""
    objects, left_out = [], []
    for catalogue in sorted(folder.glob("*/PluginFurnitureCatalog.properties")):
        library, entries = read_catalogue(catalogue)
        for number in sorted(entries):
            entry = entries[number]
            tags = tuple(t.strip() for t in entry.get("tags", "").split(",") if t.strip() not in _NO_TAGS)
            place = f"{catalogue.parent.name}/{entry['model'].lstrip('/')}"
            label = sweethome3d_label(entry["name"], tags, entry.get("category", ""))
            if label is None:
                left_out.append(f"{place} ({entry['name']})")
                continue
            objects.append(_sweethome3d_object(catalogue.parent, library, entry, label, tags))
    if not objects:
        raise InvalidInputError(
            f"{folder} holds no Sweet Home 3D catalogue, expected */PluginFurnitureCatalog.properties"
        )
    return SourceListing(tuple(objects), tuple(left_out))


_NO_TAGS = ("", "Blend Swap", "SCPTS", "Adjustable")


def _sweethome3d_object(
    folder: Path, library: dict[str, str], entry: dict[str, str], label: Label, tags: tuple[str, ...]
) -> SourceObject:
    place = f"{folder.name}/{entry['model'].lstrip('/')}"
    rotation = None
    if "modelRotation" in entry:
        values = [float(v) for v in entry["modelRotation"].split()]
        rotation = tuple(tuple(values[i : i + 3]) for i in (0, 3, 6))
    extent = (float(entry["width"]), float(entry["height"]), float(entry["depth"]))
    people = entry.get("category") == "Characters"
    if "Human" in tags:
        label = replace(label, colored=False)
    return SourceObject(
        f"sweethome3d/{place}",
        folder / PurePosixPath(entry["model"].lstrip("/")),
        f"{folder.name} {entry['name'].lower()}",
        label,
        f"Sweet Home 3D {library.get('name', folder.name)}",
        _license(library.get("license", "unknown")),
        entry.get("creator", "unknown"),
        tuple(t.lower() for t in tags),
        rotation,
        extent,
        variants=0 if people else 4,
    )


def _license(text: str) -> str:
    if text.lower().startswith("public domain"):
        return "CC0-1.0"
    if "3.0" in text and "Attribution" in text:
        return "CC-BY-3.0-US" if "United States" in text else "CC-BY-3.0"
    if "Creative Commons" in text and "3.0" in text:
        return "CC-BY-3.0"
    return text


def read_catalogue(path: Path) -> tuple[dict[str, str], dict[int, dict[str, str]]]:
    """A Sweet Home 3D catalogue (Java properties): the library's own fields, and each entry's by number."""
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
