"""Files of splats, by suffix."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from diffsplat.core import Splats
from diffsplat.io.files import atomic_path
from diffsplat.io.ply import UpAxis, read_ply, write_ply


class SplatWriter(Protocol):
    """Writes one set of splats to a path whose parent exists."""

    def __call__(self, splats: Splats, path: Path, *, up: UpAxis) -> None:
        """Write ``splats``, turned so that the axis ``up`` points up in the file."""
        ...


@dataclass(frozen=True)
class SplatFormat:
    """How one kind of file is read and written."""

    description: str
    read: Callable[[Path], Splats]
    write: SplatWriter


SPLAT_FORMATS: dict[str, SplatFormat] = {
    ".ply": SplatFormat("the original 3D Gaussian Splatting layout", read_ply, write_ply),
}


def splat_format(path: str | Path) -> SplatFormat:
    """The format that a path's suffix names.

    Raises:
        ValueError: for an unknown suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SPLAT_FORMATS:
        raise ValueError(
            f"{str(path)!r} has the suffix {suffix!r}, expected a splat file: {', '.join(SPLAT_FORMATS)}"
        )
    return SPLAT_FORMATS[suffix]


def read_splats(path: str | Path) -> Splats:
    """Read one set of splats ``[N]``, float32 on the CPU, +Y up.

    Raises:
        ValueError: for an unknown suffix, a missing file, or one that is broken or holds no splats.
    """
    return splat_format(path).read(Path(path))


def write_splats(splats: Splats, path: str | Path, *, force: bool = False, up: UpAxis = "y") -> None:
    """Write one set of splats; the file is complete or absent.

    Args:
        splats: an unbatched set.
        path: the file; its suffix chooses the format.
        force: allow an existing file to be replaced.
        up: axis that points up in the file, where the format leaves it open.

    Raises:
        ValueError: for an unknown suffix, a path that cannot be written, or splats the format cannot hold.
    """
    writer = splat_format(path).write
    with atomic_path(path, force=force) as temporary:
        writer(splats, temporary, up=up)
