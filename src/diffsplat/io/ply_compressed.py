"""PlayCanvas' compressed ``.ply`` files of splats: chunks of 256 Gaussians, 16 bytes each.

Within its chunk's bounds, a position has 11, 10 and 11 bits, the logarithm of a sigma 11, 10 and 11, a colour
8 each; opacity has 8, and the three smaller components of the quaternion 10 each. The layout is described at
https://developer.playcanvas.com/user-manual/gaussian-splatting/formats/ply/.
"""

import logging

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import InvalidInputError
from diffsplat.io.gaussian_arrays import GaussianArrays
from diffsplat.io.ply_vertex_table import parse_vertices
from diffsplat.io.splat_quantization import join_largest, morton_order, split_largest, to_unorm

logger = logging.getLogger(__name__)

CHUNK = 256
PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
_BOUNDS = ("x", "y", "z"), ("scale_x", "scale_y", "scale_z"), ("r", "g", "b")
_WIDE, _EVEN = (11, 10, 11), (8, 8, 8)
_LOG_SIGMA_LIMIT = 20.0
"""Readers take logarithms beyond this for infinities."""


def encode_compressed(gaussians: GaussianArrays, comment: str) -> bytes:
    """The bytes of a compressed ``.ply`` file, its Gaussians in Morton order.

    Raises:
        ValueError: for values beyond float32.
    """
    gaussians = gaussians.take(morton_order(gaussians.means))
    logs = np.clip(np.log(gaussians.scales), -_LOG_SIGMA_LIMIT, _LOG_SIGMA_LIMIT)
    bounds: list[NDArray[np.float32]] = []
    words = np.zeros((len(logs), len(PACKED)), dtype="<u4")
    for column, values, bits in ((0, gaussians.means, _WIDE), (2, logs, _WIDE), (3, gaussians.colors, _EVEN)):
        low, high, fractions = _within_chunks(values)
        if column == 0:
            _warn_of_rounding(high - low, gaussians.scales)
        bounds += [low, high]
        words[:, column] = _join_bits(fractions, bits)
    words[:, 3] = (words[:, 3] << 8) | to_unorm(gaussians.opacities, 8)
    largest, others = split_largest(gaussians.quats)
    words[:, 1] = (largest.astype(np.uint32) << 30) | _join_bits(others * 0.5**0.5 + 0.5, (10, 10, 10))
    table = np.concatenate(bounds, axis=1)
    header = [
        *("ply", "format binary_little_endian 1.0", f"comment {comment}", f"element chunk {len(table)}"),
        *(f"property float {edge}_{name}" for names in _BOUNDS for edge in ("min", "max") for name in names),
        f"element vertex {len(words)}",
        *(f"property uint {name}" for name in PACKED),
        "end_header\n",
    ]
    return "\n".join(header).encode("ascii") + table.astype("<f4").tobytes() + words.tobytes()


def decode_compressed(data: bytes) -> GaussianArrays:
    """The Gaussians of a compressed ``.ply`` file.

    Raises:
        ValueError: when it lacks a column, or has another number of chunks than its vertices need.
    """
    vertices, chunks = parse_vertices(data), parse_vertices(data, "chunk")
    if chunks.count != -(-vertices.count // CHUNK):
        raise InvalidInputError(
            f"it has {chunks.count} chunks for {vertices.count} vertices, expected {CHUNK} in each"
        )
    has_colors = "min_r" in chunks.columns
    bounded = _BOUNDS if has_colors else _BOUNDS[:2]
    needed = (f"{edge}_{name}" for names in bounded for edge in ("min", "max") for name in names)
    missing = [name for name in PACKED if name not in vertices.columns]
    missing += [name for name in needed if name not in chunks.columns]
    if missing:
        raise InvalidInputError(f"it lacks {', '.join(missing)}")
    words = [vertices.columns[name] for name in PACKED]
    if any(column.dtype.newbyteorder("=") != np.uint32 for column in words):
        raise InvalidInputError("its packed columns are not of the type uint")
    position, rotation, scale, color = (column.astype(np.uint32, copy=False) for column in words)
    colors = _split_bits(color >> np.uint32(8), _EVEN)
    if has_colors:
        colors = _from_chunks(chunks.columns, _BOUNDS[2], colors)
    with np.errstate(over="ignore"):
        scales = np.exp(_from_chunks(chunks.columns, _BOUNDS[1], _split_bits(scale, _WIDE)))
    others = (_split_bits(rotation, (10, 10, 10)) - np.float32(0.5)) * np.float32(2**0.5)
    return GaussianArrays(
        means=_from_chunks(chunks.columns, _BOUNDS[0], _split_bits(position, _WIDE)),
        scales=scales,
        quats=join_largest(rotation >> 30, others),
        opacities=(color & 255).astype(np.float32) / np.float32(255),
        colors=colors,
    )


def _warn_of_rounding(spans: NDArray[np.float32], scales: NDArray[np.floating]) -> None:
    """Count the Gaussians that rounding within chunks of ``spans [C, 3]`` may move by more than their size."""
    steps = (spans / [(1 << bits) - 1 for bits in _WIDE]).max(axis=1)
    moved = int((np.repeat(steps, CHUNK)[: len(scales)] / 2 > scales.max(axis=1)).sum())
    if moved:
        logger.warning(
            "%d of %d Gaussians are moved by more than their size in the compressed .ply file, since others of "
            "their chunk are far away",
            *(moved, len(scales)),
        )


def _within_chunks(
    values: NDArray[np.floating],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """Least and greatest of every chunk as they are stored, and where between them each value is."""
    starts = np.arange(0, len(values), CHUNK)
    with np.errstate(over="ignore"):
        low = np.minimum.reduceat(values, starts).astype(np.float32)
        high = np.maximum.reduceat(values, starts).astype(np.float32)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise InvalidInputError("the splats have values beyond float32, which a .ply file cannot hold")
    index = np.arange(len(values)) // CHUNK
    span = (high.astype(np.float64) - low)[index]
    with np.errstate(invalid="ignore", divide="ignore"):
        fractions = np.where(span > 0, (values - low[index]) / span, 0)
    return low, high, fractions


def _from_chunks(
    columns: dict[str, NDArray[np.generic]], names: tuple[str, ...], fractions: NDArray[np.float32]
) -> NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        for column, name in enumerate(names):
            for_each = [
                np.repeat(columns[f"{edge}_{name}"].astype(np.float32), CHUNK)[: len(fractions)]
                for edge in ("min", "max")
            ]
            part = fractions[:, column]
            fractions[:, column] = for_each[0] * (1 - part) + for_each[1] * part
    return fractions


def _join_bits(fractions: NDArray[np.floating], bits: tuple[int, int, int]) -> NDArray[np.uint32]:
    words = np.zeros(len(fractions), dtype=np.uint32)
    for column, width in enumerate(bits):
        words = (words << np.uint32(width)) | to_unorm(fractions[:, column], width)
    return words


def _split_bits(words: NDArray[np.uint32], bits: tuple[int, int, int]) -> NDArray[np.float32]:
    """``[N, 3]`` fractions of 0..1 from the lowest bits of each word."""
    fractions = np.empty((len(words), 3), dtype=np.float32)
    shift = 0
    for column in (2, 1, 0):
        most = (1 << bits[column]) - 1
        fractions[:, column] = (words >> np.uint32(shift)) & np.uint32(most)
        fractions[:, column] /= most
        shift += bits[column]
    return fractions
