"""Quantization shared by the compressed splat formats: bits, quaternions, codebooks, Morton order."""

import numpy as np
from numpy.typing import NDArray

_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
"""For each component of a quaternion, the three that are not it, in order."""

CODEBOOK_SIZE = 256


def to_unorm(values: NDArray[np.floating], bits: int) -> NDArray[np.uint32]:
    """Values of 0..1 as whole numbers from 0 to ``2 ** bits - 1``, rounded; those beyond are clipped."""
    return np.floor(np.clip(values, 0, 1) * ((1 << bits) - 1) + 0.5).astype(np.uint32)


def split_largest(quats: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    """Quaternions without their largest component, which the others give back up to the sign of all four.

    Args:
        quats: ``[N, 4]`` unit quaternions in any order of components.

    Returns:
        ``[N]`` index of the component left out, and ``[N, 3]`` the others in order, of the one of ``q`` and
        ``-q`` whose largest component is positive; each lies within ``sqrt(0.5)``.
    """
    largest = np.abs(quats).argmax(axis=1)
    leading = np.take_along_axis(quats, largest[:, None], axis=1)
    others = np.take_along_axis(quats, _OTHERS[largest], axis=1)
    return largest, np.where(leading < 0, -others, others)


def join_largest(largest: NDArray[np.integer], others: NDArray[np.floating]) -> NDArray[np.floating]:
    """``[N, 4]`` quaternions of :func:`split_largest`; longer than 1 where the others already are."""
    quats = np.empty((len(others), 4), dtype=others.dtype)
    np.put_along_axis(quats, _OTHERS[largest], others, axis=1)
    leading = np.sqrt(np.maximum(0, 1 - np.square(others).sum(axis=1, keepdims=True)))
    np.put_along_axis(quats, largest[:, None].astype(np.intp), leading, axis=1)
    return quats


def to_codebook(values: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """A table of at most 256 values, and for every value the index of the nearest.

    Up to 256 different values are kept exactly. More are replaced by an even division of their range, so that
    none is farther off than a 510th of it.

    Returns:
        ``[256]`` ascending, and the indices in the shape of ``values``.
    """
    distinct = np.unique(values)
    if len(distinct) > CODEBOOK_SIZE:
        table = np.linspace(distinct[0], distinct[-1], CODEBOOK_SIZE)
    else:
        table = np.concatenate([distinct, np.full(CODEBOOK_SIZE - len(distinct), distinct[-1])])
    middles = (table[1:] + table[:-1]) / 2
    return table, np.searchsorted(middles, values, side="left").astype(np.uint8)


def morton_order(points: NDArray[np.floating]) -> NDArray[np.intp]:
    """``[N]`` order in which neighbours in space are mostly neighbours: along the Z-shaped curve of Morton.

    A few points that are far from all others come last, so that the curve is as fine as the others need it.

    Args:
        points: ``[N, 3]``.
    """
    low, high = np.quantile(points, (0.02, 0.98), axis=0)
    # Halves, because the span of numbers near the largest would overflow.
    span = np.where(high > low, high / 2 - low / 2, 0.5)
    places = (points / 2 - low / 2) / span
    far = (np.abs(places - 0.5) > 1.5).any(axis=1)
    cells = ((places.clip(-1, 2) + 1) / 3 * 1023).astype(np.uint64)
    code = np.where(far, np.uint64(1 << 62), np.uint64(0))
    for bit in range(10):
        for axis in range(3):
            place = np.uint64(3 * bit + axis)
            code |= ((cells[:, axis] >> np.uint64(bit)) & np.uint64(1)) << place
    return np.argsort(code, kind="stable")
