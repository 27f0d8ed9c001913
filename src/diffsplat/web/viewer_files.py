"""Files that a viewer page shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import require_readable
from diffsplat.io.splat_suffixes import READABLE_SUFFIXES, splat_suffix

MAX_FILES = 8
"""Each needs a graphics context of its own, of which browsers give about sixteen."""

BROWSER_SUFFIXES = frozenset({".ply", ".compressed.ply", ".splat", ".spz", ".ksplat", ".sog"})
"""Formats that the page decodes by itself; others are turned into .ply for it."""


@dataclass(frozen=True)
class ShownFile:
    """A file given on the command line; it is read anew for every request, so that a page can be reloaded.

    Args:
        path: where it is.
        size: bytes it had when it was given.
    """

    path: Path
    size: int

    @property
    def name(self) -> str:
        """Under which the page shows it."""
        return self.path.name

    @property
    def sent_as(self) -> str:
        """File name whose suffix says what :meth:`content` is."""
        return self.name if self._native else f"{self.name}.ply"

    @property
    def _native(self) -> bool:
        return splat_suffix(self.path) in BROWSER_SUFFIXES

    def content(self) -> bytes:
        """What the page is sent: the file's bytes, or those of a ``.ply`` that holds the same splats.

        Raises:
            ValueError: when the file cannot be read any more.
        """
        if self._native:
            return require_readable(self.path).read_bytes()
        # Reading takes torch, whose import takes seconds; most files are served without it.
        from diffsplat.io.splat_formats import read_splats, write_splats

        splats = read_splats(self.path)
        with TemporaryDirectory() as folder:
            converted = Path(folder) / "converted.ply"
            write_splats(splats, converted)
            return converted.read_bytes()


def shown_files(paths: Sequence[Path]) -> tuple[ShownFile, ...]:
    """The files to show, checked as far as that is quick.

    Raises:
        ValueError: too many, an unknown suffix, or one that is missing or no file.
    """
    if len(paths) > MAX_FILES:
        raise InvalidInputError(f"{len(paths)} files were given, expected at most {MAX_FILES}")
    for path in paths:
        if splat_suffix(path) is None:
            known = ", ".join(READABLE_SUFFIXES)
            raise InvalidInputError(f"{str(path)!r} is not the name of a splat file, expected one of {known}")
        require_readable(path)
    return tuple(ShownFile(path, path.stat().st_size) for path in paths)
