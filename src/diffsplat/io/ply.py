"""Splats in the ``.ply`` layout of the original 3D Gaussian Splatting (Kerbl et al., SIGGRAPH 2023).

Opacity is stored as a logit, sigma as a natural logarithm, rotation as a quaternion ``w x y z``, and colour
as the spherical-harmonic coefficient of degree 0, ``(rgb - 0.5) / 0.28209479177387814``; all as float32.
"""

import logging
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffsplat.core import Splats
from diffsplat.io.files import require_readable
from diffsplat.io.ply_table import MAX_HEADER_BYTES, VertexTable, parse_vertices, vertex_properties

logger = logging.getLogger(__name__)

UpAxis = Literal["y", "z", "minus-y"]
"""What points up in a file: +Y as in this package, +Z as in modelling programs, -Y as in many viewers."""

_SH_DEGREE_0 = 0.28209479177387814
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


def write_ply(splats: Splats, path: Path, *, up: UpAxis = "y") -> None:
    """Write one set of splats, binary little endian.

    :func:`read_ply` gives back means exactly; rotations, colours and opacities to 1e-6 and sigmas to 1e-6 of
    their value (float32 logits and logarithms). What was read once is read and written bitwise the same ever
    after, unless ``up`` is ``"z"``, which turns rotations by an angle that float32 rounds.

    Args:
        splats: an unbatched set of at least one Gaussian.
        path: the file, replaced where it exists.
        up: axis that points up in the file; a comment in its header says which.

    Raises:
        ValueError: for a batch, an empty set, or values beyond float32.
    """
    if splats.batch_shape:
        raise ValueError(f"a .ply file holds one set of splats, got the batch {tuple(splats.batch_shape)}")
    if not splats.count:
        raise ValueError("there are no splats to write, expected at least one")
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment {_UP_COMMENTS[up]}",
        f"element vertex {splats.count}",
        *(f"property float {name}" for name in _PROPERTIES),
        "end_header\n",
    ]
    rows = _encode(splats, up)
    with path.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(rows.tobytes())


def read_ply(path: Path) -> Splats:
    """Read one set of splats, float32 on the CPU, with +Y up.

    Files of other programs are read too: ASCII or either byte order, any scalar types, any property order,
    other properties and elements. Harmonics beyond degree 0 are ignored, colours are clipped to 0..1 and
    quaternions normalised. Axes are turned only when a comment of :func:`write_ply` says which points up.

    Raises:
        ValueError: when the file is missing, broken, or holds no splats.
    """
    data = require_readable(path).read_bytes()
    try:
        table = parse_vertices(data)
        return _decode(table, path.name)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not a readable splat file: {error}") from error


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
        raise ValueError(f"{str(path)!r} is not a readable .ply file: {error}") from error
    return not set(_SCALES + _QUATS).isdisjoint(names)


def _encode(splats: Splats, up: UpAxis) -> NDArray[np.float32]:
    """``[N, 14]`` float32, little endian, in the order of the file."""
    means, quats = _turn(_to_numpy(splats.means), _to_numpy(splats.quats), up)
    opacities = np.clip(_to_numpy(splats.opacities), 0, 1)[:, None]
    colors = np.clip(_to_numpy(splats.colors), 0, 1)
    with np.errstate(divide="ignore", over="ignore"):
        logits = np.clip(np.log(opacities) - np.log1p(-opacities), -_LOGIT_LIMIT, _LOGIT_LIMIT)
        harmonics = (colors - 0.5) / _SH_DEGREE_0
        columns = [means, harmonics, logits, np.log(_to_numpy(splats.scales)), quats]
        rows = np.concatenate(columns, axis=1).astype("<f4")
    if not np.isfinite(rows).all():
        raise ValueError("the splats have values beyond the range of float32, which a .ply file cannot hold")
    return rows


def _decode(table: VertexTable, name: str) -> Splats:
    missing = [entry for entry in _PROPERTIES if entry not in table.columns]
    if missing:
        raise ValueError(f"its vertices lack {', '.join(missing)}")
    rest = sum(entry.startswith("f_rest_") for entry in table.columns)
    if rest:
        logger.warning("%s: %d spherical-harmonic coefficients beyond degree 0 are ignored", name, rest)
    with np.errstate(over="ignore"):
        means, quats = _finite(table, _MEANS), _normalized(_finite(table, _QUATS))
        colors = np.clip(_finite(table, _COLORS) * _SH_DEGREE_0 + 0.5, 0, 1)
        scales = np.exp(_finite(table, _SCALES)).astype(np.float32)
        # An infinite logit is what other programs write for an opacity of exactly 0 or 1.
        logits = table.stack(_OPACITY)[:, 0]
        opacities = 1 / (1 + np.exp(-logits))
    if np.isnan(logits).any():
        raise ValueError(f"{int(np.isnan(logits).sum())} of its vertices have NaN as opacity")
    if not (np.isfinite(scales) & (scales > 0)).all():
        raise ValueError("it has splats whose size is zero or infinite in float32")
    for up, comment in _UP_COMMENTS.items():
        if comment in table.comments:
            means, quats = _turn(means, quats, up, back=True)
    return Splats(
        means=_to_torch(means),
        scales=_to_torch(scales),
        quats=_to_torch(quats),
        opacities=_to_torch(opacities),
        colors=_to_torch(colors),
    )


def _finite(table: VertexTable, names: tuple[str, ...]) -> NDArray[np.float64]:
    """``[N, len(names)]``, refused unless every value is finite in float32."""
    values = table.stack(names)
    bad = int((~np.isfinite(values.astype(np.float32))).any(axis=1).sum())
    if bad:
        raise ValueError(f"{bad} of its vertices have NaN or infinite values in {', '.join(names)}")
    return values


def _normalized(quats: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit quaternions; those that are so to float32 stay as they are: reading again changes nothing."""
    lengths = np.linalg.norm(quats, axis=1, keepdims=True)
    zero = int((lengths < 1e-12).sum())
    if zero:
        raise ValueError(f"{zero} of its vertices have a rotation of length zero")
    return np.where(np.abs(lengths - 1) < 1e-6, quats, quats / lengths)


def _turn(
    means: NDArray[np.float64], quats: NDArray[np.float64], up: UpAxis, *, back: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotate about X until +Y has become ``up``, or undo that."""
    match up:
        case "y":
            return means, quats
        case "z":
            cosine, sine, half_cosine, half_sine = 0.0, 1.0, 0.5**0.5, 0.5**0.5
        case "minus-y":
            cosine, sine, half_cosine, half_sine = -1.0, 0.0, 0.0, 1.0
    if back:
        sine, half_sine = -sine, -half_sine
    x, y, z = means.T
    turned = np.stack([x, cosine * y - sine * z, sine * y + cosine * z], axis=1)
    w, i, j, k = quats.T
    product = np.stack(
        [
            half_cosine * w - half_sine * i,
            half_cosine * i + half_sine * w,
            half_cosine * j - half_sine * k,
            half_cosine * k + half_sine * j,
        ],
        axis=1,
    )
    return turned, product


def _to_numpy(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().to(device="cpu", dtype=torch.float64).numpy()


def _to_torch(values: NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
