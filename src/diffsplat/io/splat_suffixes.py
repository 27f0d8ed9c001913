"""Suffixes of splat files. Imports neither torch nor numpy."""

from pathlib import Path

WRITABLE_SUFFIXES = (".ply", ".compressed.ply", ".splat", ".spz", ".sog", ".glb", ".gltf")
"""Suffixes of the splat files that can be written and read."""

READABLE_SUFFIXES = (*WRITABLE_SUFFIXES, ".ksplat")
"""Suffixes of the splat files that can be read."""


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
