"""The ``.ply`` layout of the original 3D Gaussian Splatting (Kerbl et al., SIGGRAPH 2023).

Opacity is stored as a logit, sigma as a natural logarithm, rotation as a quaternion ``w x y z``, and colour
as the spherical-harmonic coefficient of degree 0, ``(rgb - 0.5) / 0.28209479177387814``; all as float32.
"""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import require_readable
from diffsplat.io.gaussian_arrays import SH_DEGREE_0, GaussianArrays, normalized
from diffsplat.io.ply_compressed import PACKED, decode_compressed, encode_compressed
from diffsplat.io.ply_vertex_table import MAX_HEADER_BYTES, VertexTable, parse_vertices, vertex_properties
from diffsplat.io.up_axis import UpAxis

logger = logging.getLogger(__name__)

_LOGIT_LIMIT = 104.0
"""sigmoid(-104) is the first to round to 0 in float32; opacities 0 and 1 are stored as its two signs."""

_MEANS = ("x", "y", "z")
_COLORS = ("f_dc_0", "f_dc_1", "f_dc_2")
_OPACITY = ("opacity",)
_SCALES = ("scale_0", "scale_1", "scale_2")
_QUATS = ("rot_0", "rot_1", "rot_2", "rot_3")
_PROPERTIES = _MEANS + _COLORS + _OPACITY + _SCALES + _QUATS

_UP_COMMENTS: dict[UpAxis, str] = {
    "y": "up axis +y, right-handed",
    "z": "up axis +z, right-handed",
    "minus-y": "up axis -y, right-handed",
}


def encode_ply(gaussians: GaussianArrays) -> bytes:
    """The bytes of a ``.ply`` file, binary little endian; a comment in its header says which axis points up.

    :func:`decode_ply` returns means exactly; rotations, colours and opacities to 1e-6 and sigmas to 1e-6 of
    their value (float32 logits and logarithms). What was read once is read and written bitwise the same ever
    after, unless ``up`` is ``"z"``, which turns rotations by an angle that float32 rounds.

    Raises:
        ValueError: for values beyond float32.
    """
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment {_UP_COMMENTS[gaussians.up or 'y']}",
        f"element vertex {len(gaussians.means)}",
        *(f"property float {name}" for name in _PROPERTIES),
        "end_header\n",
    ]
    return "\n".join(header).encode("ascii") + _rows(gaussians).tobytes()


def encode_compressed_ply(gaussians: GaussianArrays) -> bytes:
    """The bytes of a compressed ``.ply`` file, with the same comment about the axis that points up.

    Raises:
        ValueError: for values beyond float32.
    """
    return encode_compressed(gaussians, _UP_COMMENTS[gaussians.up or "minus-y"])


def decode_ply(data: bytes) -> GaussianArrays:
    """The Gaussians of a ``.ply`` file.

    Files of other programs are read too: compressed, ASCII or either byte order, any scalar types, any
    property order, other properties and elements. Harmonics beyond degree 0 are ignored. ``up`` is what a
    comment of :func:`encode_ply` says, or -Y in compressed files without one.

    Raises:
        ValueError: when the bytes are broken, or hold no splats.
    """
    table = parse_vertices(data)
    _warn_of_harmonics(table, data)
    if PACKED[0] in table.columns:
        gaussians = decode_compressed(data)
        return replace(gaussians, up=_stated_up(table) or "minus-y")
    return replace(_decode(table), up=_stated_up(table))


def holds_splats(path: Path) -> bool:
    """Whether a ``.ply`` file's header promises splats, rather than a mesh or plain points.

    Raises:
        ValueError: when the file is missing or no PLY file.
    """
    with require_readable(path).open("rb") as file:
        head = file.read(MAX_HEADER_BYTES)
    try:
        names = vertex_properties(head)
    except ValueError as error:
        raise InvalidInputError(f"{str(path)!r} is not a readable .ply file: {error}") from error
    return not set(_SCALES + _QUATS + PACKED).isdisjoint(names)


def _stated_up(table: VertexTable) -> UpAxis | None:
    return next((up for up, comment in _UP_COMMENTS.items() if comment in table.comments), None)


def _warn_of_harmonics(table: VertexTable, data: bytes) -> None:
    rest = sum(entry.startswith("f_rest_") for entry in table.columns)
    rest = rest or data[: data.find(b"end_header")].count(b"property uchar f_rest_")
    if rest:
        logger.warning("%d spherical-harmonic coefficients beyond degree 0 are ignored", rest)


def _rows(gaussians: GaussianArrays) -> NDArray[np.float32]:
    """``[N, 14]`` float32, little endian, in the order of the file."""
    opacities = gaussians.opacities[:, None]
    with np.errstate(divide="ignore", over="ignore"):
        logits = np.clip(np.log(opacities) - np.log1p(-opacities), -_LOGIT_LIMIT, _LOGIT_LIMIT)
        harmonics = (gaussians.colors - 0.5) / SH_DEGREE_0
        columns = [gaussians.means, harmonics, logits, np.log(gaussians.scales), gaussians.quats]
        rows = np.concatenate(columns, axis=1).astype("<f4")
    if not np.isfinite(rows).all():
        raise InvalidInputError(
            "the splats have values beyond the range of float32, which a .ply file cannot hold"
        )
    return rows


def _decode(table: VertexTable) -> GaussianArrays:
    missing = [entry for entry in _PROPERTIES if entry not in table.columns]
    if missing:
        raise InvalidInputError(f"its vertices lack {', '.join(missing)}")
    with np.errstate(over="ignore"):
        means, quats = _finite(table, _MEANS), normalized(_finite(table, _QUATS))
        colors = _finite(table, _COLORS) * SH_DEGREE_0 + 0.5
        scales = np.exp(_finite(table, _SCALES)).astype(np.float32)
        # An infinite logit is what other programs write for an opacity of exactly 0 or 1.
        logits = table.stack(_OPACITY)[:, 0]
        opacities = 1 / (1 + np.exp(-logits))
    if np.isnan(logits).any():
        raise InvalidInputError(f"{int(np.isnan(logits).sum())} of its vertices have NaN as opacity")
    if not (np.isfinite(scales) & (scales > 0)).all():
        raise InvalidInputError("it has splats whose size is zero or infinite in float32")
    return GaussianArrays(means, scales, quats, opacities, colors)


def _finite(table: VertexTable, names: tuple[str, ...]) -> NDArray[np.float64]:
    """``[N, len(names)]``, refused unless every value is finite in float32."""
    values = table.stack(names)
    bad = int((~np.isfinite(values.astype(np.float32))).any(axis=1).sum())
    if bad:
        raise InvalidInputError(f"{bad} of its vertices have NaN or infinite values in {', '.join(names)}")
    return values
