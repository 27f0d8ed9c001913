"""The registry of splat formats: reading and writing splat files by suffix."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diffsplat.core import Splats
from diffsplat.errors import InvalidInputError
from diffsplat.io import gltf_splats, ply_splats
from diffsplat.io.dot_splat import decode_splat, encode_splat
from diffsplat.io.file_access import atomic_path, read_bytes
from diffsplat.io.gaussian_arrays import GaussianArrays, from_splats, to_splats
from diffsplat.io.gltf_document import Document
from diffsplat.io.ksplat import decode_ksplat
from diffsplat.io.sog import decode_sog, encode_sog
from diffsplat.io.splat_suffixes import WRITABLE_SUFFIXES, splat_suffix
from diffsplat.io.spz import decode_spz, encode_spz
from diffsplat.io.up_axis import UpAxis

Decoder = Callable[[bytes], GaussianArrays]
Encoder = Callable[[GaussianArrays], bytes]


@dataclass(frozen=True)
class SplatFormat:
    """How one kind of file is read and written.

    Args:
        description: a few words for users.
        up: what points up in such a file, unless it says so itself.
        decode: its bytes to Gaussians.
        encode: Gaussians to its bytes; None for a format that is only read.
    """

    description: str
    up: UpAxis
    decode: Decoder
    encode: Encoder | None


SPLAT_FORMATS: dict[str, SplatFormat] = {
    ".ply": SplatFormat(
        "the original 3D Gaussian Splatting layout", "y", ply_splats.decode_ply, ply_splats.encode_ply
    ),
    ".compressed.ply": SplatFormat(
        "PlayCanvas' compressed layout", "minus-y", ply_splats.decode_ply, ply_splats.encode_compressed_ply
    ),
    ".splat": SplatFormat("32 bytes per Gaussian", "minus-y", decode_splat, encode_splat),
    ".spz": SplatFormat("Niantic's compressed format", "y", decode_spz, encode_spz),
    ".sog": SplatFormat("PlayCanvas' textures", "minus-y", decode_sog, encode_sog),
    ".glb": SplatFormat(
        "binary glTF, KHR_gaussian_splatting", "y", gltf_splats.decode_gltf, gltf_splats.encode_glb
    ),
    ".gltf": SplatFormat(
        "glTF, KHR_gaussian_splatting", "y", gltf_splats.decode_gltf, gltf_splats.encode_gltf
    ),
    ".ksplat": SplatFormat("the format of GaussianSplats3D", "minus-y", decode_ksplat, None),
}


def splat_format(path: str | Path) -> SplatFormat:
    """The format that a path's suffix names.

    Raises:
        ValueError: for an unknown suffix.
    """
    suffix = splat_suffix(path)
    if suffix is None:
        raise InvalidInputError(
            f"{str(path)!r} has the suffix {Path(path).suffix!r}, expected a splat file: "
            f"{', '.join(SPLAT_FORMATS)}"
        )
    return SPLAT_FORMATS[suffix]


def writable_format(path: str | Path) -> SplatFormat:
    """The format that a path's suffix names, if it can be written.

    Raises:
        ValueError: for an unknown suffix, or a format that is only read.
    """
    found = splat_format(path)
    if found.encode is None:
        raise InvalidInputError(
            f"{str(path)!r} has a suffix that is only read, expected one of {', '.join(WRITABLE_SUFFIXES)}"
        )
    return found


def read_splats(path: str | Path, *, up: UpAxis | None = None) -> Splats:
    """Read one set of splats ``[N]``, float32 on the CPU, +Y up.

    Args:
        path: the file; its suffix says of what format.
        up: axis that points up in the file; by default what it says itself, else what is usual in its format.

    Raises:
        ValueError: for an unknown suffix, a missing file, or one that is broken or holds no splats.
    """
    found = splat_format(path)
    data = read_bytes(path)
    try:
        gaussians = found.decode(data)
        return to_splats(gaussians, up or gaussians.up or found.up)
    except ValueError as error:
        raise InvalidInputError(f"{str(path)!r} is not a readable splat file: {error}") from error


def write_splats(splats: Splats, path: str | Path, *, force: bool = False, up: UpAxis | None = None) -> None:
    """Write one set of splats; the file is complete or absent.

    Args:
        splats: an unbatched set of at least one Gaussian.
        path: the file; its suffix chooses the format.
        force: allow an existing file to be replaced.
        up: axis that points up in the file; by default what is usual in its format. Only ``.ply`` and
            ``.compressed.ply`` files say which it is.

    Raises:
        ValueError: for an unknown suffix, a path that cannot be written, or splats the format cannot hold.
    """
    chosen = writable_format(path)
    with atomic_path(path, force=force) as temporary:
        if chosen.encode is not None:
            temporary.write_bytes(chosen.encode(from_splats(splats, up or chosen.up)))


def holds_splats(path: str | Path) -> bool:
    """Whether a file holds splats, rather than a mesh or plain points, as far as its head says.

    Raises:
        ValueError: when the file is missing, or broken where that had to be looked up.
    """
    match splat_suffix(path):
        case ".ply" | ".compressed.ply":
            return ply_splats.holds_splats(Path(path))
        case ".glb" | ".gltf":
            return _gltf_holds_splats(Path(path))
        case suffix:
            return suffix is not None


def _gltf_holds_splats(path: Path) -> bool:
    data = read_bytes(path)
    if gltf_splats.EXTENSION.encode() not in data:
        return False
    return any(mesh for mesh, _ in Document.parse(data).placed_meshes(gltf_splats.is_splats))
