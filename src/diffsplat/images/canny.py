"""Canny edges (Canny, "A Computational Approach to Edge Detection", PAMI 1986).

The arithmetic is that of OpenCV, to the bit, since the released control network has seen OpenCV's edges: 3x3 Sobel
over a replicated border, the sum of the absolute derivatives as magnitude, directions told apart at 22.5 and 67.5
degrees in fixed point, and hysteresis over all eight neighbours.
"""

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import InvalidInputError, require

_TAN_22_5 = 13573
"""tan(22.5 degrees) in 1/32768; tan(67.5 degrees) is exactly 2 more."""

_FIXED_BITS = 15
_GREY_WEIGHTS = (9798, 19235, 3735)
"""Rec. 601 luma in 1/32768."""


def grey_of(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``[H, W]`` luma bytes of ``[H, W, 3]`` sRGB bytes."""
    total = rgb.astype(np.int32) @ np.array(_GREY_WEIGHTS, dtype=np.int32)
    return ((total + (1 << (_FIXED_BITS - 1))) >> _FIXED_BITS).astype(np.uint8)


def canny_edges(grey: NDArray[np.uint8], low: int = 100, high: int = 200) -> NDArray[np.bool_]:
    """Where an image has edges.

    Args:
        grey: ``[H, W]`` bytes.
        low: gradient magnitude above which a pixel may continue an edge.
        high: gradient magnitude above which a pixel starts an edge.

    Returns:
        ``[H, W]`` True on edges, which are about one pixel wide.

    Raises:
        ValueError: for another shape or type, or thresholds that are not in order.
    """
    if grey.ndim != 2 or grey.dtype != np.uint8 or 0 in grey.shape:
        raise InvalidInputError(f"canny_edges got {grey.dtype} {grey.shape}, expected bytes of shape [H, W]")
    require(0 <= low <= high, "the pair of thresholds", f"{low} and {high}", "0 <= low <= high")
    across, down = _sobel(grey)
    magnitude = np.abs(across) + np.abs(down)
    ridge = _ridge(across, down, magnitude) & (magnitude > low)
    return _connected(ridge, ridge & (magnitude > high))


def _sobel(grey: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Derivatives to the right and downwards."""
    padded = np.pad(grey.astype(np.int32), 1, mode="edge")
    smooth_rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    smooth_columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return smooth_rows[:, 2:] - smooth_rows[:, :-2], smooth_columns[2:] - smooth_columns[:-2]


def _ridge(
    across: NDArray[np.int32], down: NDArray[np.int32], magnitude: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Pixels whose magnitude is greatest along the gradient; of equal ones in a row or column, the first."""
    height, width = magnitude.shape
    padded = np.pad(magnitude, 1)

    def neighbour(dy: int, dx: int) -> NDArray[np.int32]:
        return padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

    x, y = np.abs(across), np.abs(down) << _FIXED_BITS
    flat = x * _TAN_22_5
    steep = flat + (x << (_FIXED_BITS + 1))
    horizontal = (magnitude > neighbour(0, -1)) & (magnitude >= neighbour(0, 1))
    vertical = (magnitude > neighbour(-1, 0)) & (magnitude >= neighbour(1, 0))
    falling = (magnitude > neighbour(-1, -1)) & (magnitude > neighbour(1, 1))
    rising = (magnitude > neighbour(-1, 1)) & (magnitude > neighbour(1, -1))
    diagonal = np.where((across ^ down) < 0, rising, falling)
    return np.where(y < flat, horizontal, np.where(y > steep, vertical, diagonal))


def _connected(ridge: NDArray[np.bool_], start: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of ``ridge`` that a chain of neighbours joins to one of ``start``."""
    open_pixels = np.pad(ridge, 1)
    stride = open_pixels.shape[1]
    steps = (-stride - 1, -stride, -stride + 1, -1, 1, stride - 1, stride, stride + 1)
    unvisited = bytearray(open_pixels.tobytes())
    waiting: list[int] = np.flatnonzero(np.pad(start, 1)).tolist()
    for place in waiting:
        unvisited[place] = 0
    reached = []
    while waiting:
        place = waiting.pop()
        reached.append(place)
        for step in steps:
            if unvisited[place + step]:
                unvisited[place + step] = 0
                waiting.append(place + step)
    edges = np.zeros(open_pixels.size, dtype=np.bool_)
    edges[reached] = True
    return edges.reshape(open_pixels.shape)[1:-1, 1:-1]
