"""Rotation between this package's up axis, +Y, and that of a file."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

UpAxis = Literal["y", "z", "minus-y"]
"""What points up in a file: +Y as in this package, +Z as in modelling programs, -Y as in many viewers."""


def rotate_up_axis(
    means: NDArray[np.floating], quats: NDArray[np.floating], up: UpAxis, *, inverse: bool = False
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Rotate Gaussians about X until +Y has become ``up``, or undo that.

    Args:
        means: ``[N, 3]``.
        quats: ``[N, 4]``, ``w x y z``.
        up: the axis that +Y becomes.
        inverse: undo the rotation instead.
    """
    match up:
        case "y":
            return means, quats
        case "z":
            cosine, sine, half_cosine, half_sine = 0.0, 1.0, 0.5**0.5, 0.5**0.5
        case "minus-y":
            cosine, sine, half_cosine, half_sine = -1.0, 0.0, 0.0, 1.0
    if inverse:
        sine, half_sine = -sine, -half_sine
    x, y, z = means.T
    rotated = np.stack([x, cosine * y - sine * z, sine * y + cosine * z], axis=1)
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
    return rotated, product
