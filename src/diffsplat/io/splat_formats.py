"""The registry of splat formats: reading and writing splat files by suffix."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffsplat.core import Splats
from diffsplat.errors import InvalidInputError
from diffsplat.io import gltf_splats, ply_splats
from diffsplat.io.dot_splat import decode_splat, encode_splat
from diffsplat.io.file_access import atomic_path, read_bytes
from diffsplat.io.gaussian_arrays import GaussianArrays, from_splats, to_splats, without_unusable
from diffsplat.io.gltf_document import Document
from diffsplat.io.ksplat import decode_ksplat
from diffsplat.io.origin_records import with_origin
from diffsplat.io.sog import decode_sog, decode_sog_folder, encode_sog
from diffsplat.io.splat_suffixes import WRITABLE_SUFFIXES, splat_suffix, unpacked_sog_folder
from diffsplat.io.spz import decode_spz, encode_spz
from diffsplat.io.up_axis import UpAxis

logger = logging.getLogger(__name__)

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


_STARTS = {
    b"ply\n": ".ply",
    b"ply\r": ".ply",
    b"\x1f\x8b\x08": ".spz",
    b"NGSP": ".spz",
    b"PK\x03\x04": ".sog",
    b"glTF": ".glb",
}
"""First bytes of formats that have a mark."""


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


def read_splats(path: str | Path, *, up: UpAxis | None = None, strict: bool = False) -> Splats:
    """Read one set of splats ``[N]``, float32 on the CPU, +Y up.

    Gaussians that cannot be drawn are left out and trailing bytes are ignored; both are counted in
    one line of the log.

    Args:
        path: the file; its suffix says of what format, unless it starts like one of another. Or the
            ``meta.json`` of an unpacked ``.sog`` archive, or its folder.
        up: axis that points up in the file; by default what it says itself, else what is usual in its format.
        strict: refuse a file with unusable Gaussians or trailing bytes.

    Raises:
        ValueError: for an unknown suffix, a missing file, or one that is broken or holds no splats.
    """
    found, decode = _opened(Path(path))
    try:
        gaussians = without_unusable(decode())
        if strict and gaussians.flaws:
            raise InvalidInputError(", ".join(gaussians.flaws))
    except ValueError as error:
        raise InvalidInputError(f"{str(path)!r} is not a readable splat file: {error}") from error
    if gaussians.flaws:
        logger.warning("left out of %r: %s", str(path), ", ".join(gaussians.flaws))
    return to_splats(gaussians, up or gaussians.up or found.up)


def _opened(path: Path) -> tuple[SplatFormat, Callable[[], GaussianArrays]]:
    """The format of a file, and what decodes its content.

    Raises:
        ValueError: for an unknown suffix or a file that cannot be read.
    """
    folder = unpacked_sog_folder(path)
    if folder is not None:
        return SPLAT_FORMATS[".sog"], partial(decode_sog_folder, folder)
    found = splat_format(path)
    data = read_bytes(path)
    for start, suffix in _STARTS.items():
        actual = SPLAT_FORMATS[suffix]
        if data.startswith(start) and actual.decode is not found.decode:
            logger.warning("%r is read as %s, which it starts like", str(path), suffix)
            return actual, partial(actual.decode, data)
    return found, partial(found.decode, data)


def write_splats(
    splats: Splats,
    path: str | Path,
    *,
    force: bool = False,
    up: UpAxis | None = None,
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Write one set of splats; the file is complete or absent.

    Args:
        splats: an unbatched set of at least one Gaussian.
        path: the file; its suffix chooses the format.
        force: allow an existing file to be replaced.
        up: axis that points up in the file; by default what is usual in its format. Only ``.ply`` and
            ``.compressed.ply`` files say which it is.
        origin: how the splats were made; JSON values that are kept in the file where its format has room, see
            :func:`~diffsplat.io.origin_records.with_origin`.

    Raises:
        ValueError: for an unknown suffix, a path that cannot be written, or splats the format cannot hold.
    """
    chosen = writable_format(path)
    with atomic_path(path, force=force) as temporary:
        if chosen.encode is not None:
            data = chosen.encode(from_splats(splats, up or chosen.up))
            temporary.write_bytes(
                data if origin is None else with_origin(data, splat_suffix(path) or "", origin)
            )


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
