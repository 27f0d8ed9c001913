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
from diffsplat.io.gaussian_arrays import SH_DEGREE_0, GaussianArrays, bytes_behind
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
_PLAIN_COLORS = ("red", "green", "blue")

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
    property order, other properties and elements, colours as ``red green blue``, and the flat Gaussians of 2D
    Gaussian Splatting (Huang et al., SIGGRAPH 2024), which have two sigmas. Harmonics beyond degree 0 are
    ignored. ``up`` is what a comment of :func:`encode_ply` says, or -Y in compressed files without one.

    Raises:
        ValueError: when the bytes are broken, or hold no splats.
    """
    table = parse_vertices(data)
    _warn_of_harmonics(table, data)
    flaws = bytes_behind(table.bytes_behind)
    if PACKED[0] in table.columns:
        return replace(decode_compressed(data), up=_stated_up(table) or "minus-y", flaws=flaws)
    return replace(_decode(table), up=_stated_up(table), flaws=flaws)


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
        raise InvalidInputError("the splats have values beyond float32, which a .ply file cannot hold")
    return rows


def _decode(table: VertexTable) -> GaussianArrays:
    _require_properties(table)
    with np.errstate(over="ignore", invalid="ignore"):
        scales = np.exp(table.stack(tuple(name for name in _SCALES if name in table.columns)))
        # An infinite logit is what other programs write for an opacity of exactly 0 or 1.
        opacities = 1 / (1 + np.exp(-table.stack(_OPACITY)[:, 0]))
        if scales.shape[1] == 2:
            scales = np.pad(scales, ((0, 0), (0, 1)))
        return GaussianArrays(
            means=table.stack(_MEANS),
            scales=scales.astype(np.float32),
            quats=table.stack(_QUATS),
            opacities=opacities,
            colors=_colors(table),
        )


def _require_properties(table: VertexTable) -> None:
    """Refuse a table that lacks properties, meshes and point clouds by their name."""
    colors = _PLAIN_COLORS if _has_plain_colors(table) else _COLORS
    needed = (*_MEANS, *colors, *_OPACITY, *_SCALES[:2], *_QUATS)
    missing = [name for name in needed if name not in table.columns]
    if not missing:
        return
    kind = "a mesh" if "face" in table.elements else "a point cloud"
    known = not set(_SCALES + _QUATS).isdisjoint(table.columns)
    start = "" if known else f"it is {kind}, not splats: "
    raise InvalidInputError(f"{start}its vertices lack {', '.join(missing)}")


def _has_plain_colors(table: VertexTable) -> bool:
    return set(_COLORS).isdisjoint(table.columns) and set(_PLAIN_COLORS) <= set(table.columns)


def _colors(table: VertexTable) -> NDArray[np.float64]:
    """``[N, 3]`` sRGB, not clipped."""
    if not _has_plain_colors(table):
        return table.stack(_COLORS) * SH_DEGREE_0 + 0.5
    code = table.columns[_PLAIN_COLORS[0]].dtype.str
    return table.stack(_PLAIN_COLORS) / (1 if "f" in code else np.iinfo(code).max)
