"""Suffixes of splat files. Imports neither torch nor numpy."""

from pathlib import Path

from diffsplat.io.file_access import explained_os_errors, require_readable

WRITABLE_SUFFIXES = (".ply", ".compressed.ply", ".splat", ".spz", ".sog", ".glb", ".gltf")
"""Suffixes of the splat files that can be written and read."""

READABLE_SUFFIXES = (*WRITABLE_SUFFIXES, ".ksplat")
"""Suffixes of the splat files that can be read."""

MESH_SUFFIX = ".mesh.glb"
"""Of the triangle mesh of an object, next to its splats."""

SOG_INDEX = "meta.json"
"""File of an unpacked ``.sog`` archive that names the others."""


def unpacked_sog_folder(path: str | Path) -> Path | None:
    """The folder of an unpacked ``.sog`` archive that a path names, by itself or by its ``meta.json``.

    Raises:
        ValueError: when the system refuses the path.
    """
    folder = Path(path).parent if Path(path).name == SOG_INDEX else Path(path)
    with explained_os_errors(f"cannot read {str(path)!r}"):
        return folder if (folder / SOG_INDEX).is_file() else None


def require_splat_file(path: str | Path) -> None:
    """Check that a path names a file that may be read, or the folder of an unpacked ``.sog`` archive.

    Raises:
        ValueError: see :func:`~diffsplat.io.file_access.require_readable`.
    """
    if unpacked_sog_folder(path) is None:
        require_readable(path)


def splat_suffix(path: str | Path) -> str | None:
    """The longest suffix of a splat file that a path has, in lower case, or None.

    ``chair.compressed.ply`` has ``.compressed.ply``; ``chair.red.ply`` has ``.ply``.
    """
    name = Path(path).name.lower()
    fitting = [suffix for suffix in READABLE_SUFFIXES if name.endswith(suffix) and name != suffix]
    return max(fitting, key=len, default=None)


def splat_stem(path: str | Path) -> str:
    """A path's name without the suffix of a splat file."""
    name = Path(path).name
    return name[: len(name) - len(splat_suffix(name) or "")]
