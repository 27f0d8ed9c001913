"""Gaussians as numpy arrays in the axes of a file: what every format encodes and decodes."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffsplat.core import SPLAT_FIELDS, Splats
from diffsplat.errors import InvalidInputError
from diffsplat.io.up_axis import UpAxis, rotate_up_axis

logger = logging.getLogger(__name__)

SH_DEGREE_0 = 0.28209479177387814
"""The constant spherical harmonic: colour is 0.5 plus this times the coefficient of degree 0."""

FLAT_SIGMA = 1e-10
"""Sigma that a stored 0, a flat Gaussian, is read as."""


@dataclass(frozen=True)
class GaussianArrays:
    """``N`` activated Gaussians in the axes of a file.

    Args:
        means: ``[N, 3]``.
        scales: ``[N, 3]`` sigmas, not logarithms.
        quats: ``[N, 4]``, ``w x y z``, of any length but 0.
        opacities: ``[N]``, 0 to 1.
        colors: ``[N, 3]`` sRGB, clipped to 0..1 on reading.
        up: what points up, where the file says so.
    """

    means: NDArray[np.floating]
    scales: NDArray[np.floating]
    quats: NDArray[np.floating]
    opacities: NDArray[np.floating]
    colors: NDArray[np.floating]
    up: UpAxis | None = None

    def take(self, order: NDArray[np.intp]) -> "GaussianArrays":
        """The Gaussians ``order [M]``."""
        return replace(self, **{name: getattr(self, name)[order] for name in SPLAT_FIELDS})

    @classmethod
    def concatenate(cls, parts: Sequence["GaussianArrays"]) -> "GaussianArrays":
        """The Gaussians of all parts, of which there is at least one."""
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in SPLAT_FIELDS}
        return replace(parts[0], **joined)


def from_splats(splats: Splats, up: UpAxis) -> GaussianArrays:
    """Arrays of float64, rotated so that ``up`` points up.

    Raises:
        ValueError: for a batch, or an empty set.
    """
    if splats.batch_shape:
        raise InvalidInputError(f"a file holds one set of splats, got the batch {tuple(splats.batch_shape)}")
    if not splats.count:
        raise InvalidInputError("there are no splats to write, expected at least one")
    means, quats = rotate_up_axis(_to_numpy(splats.means), _to_numpy(splats.quats), up)
    return GaussianArrays(
        means=means,
        scales=_to_numpy(splats.scales),
        quats=quats,
        opacities=np.clip(_to_numpy(splats.opacities), 0, 1),
        colors=np.clip(_to_numpy(splats.colors), 0, 1),
        up=up,
    )


def to_splats(gaussians: GaussianArrays, up: UpAxis) -> Splats:
    """Splats of float32 on the CPU with +Y up, from arrays in which ``up`` points up.

    Raises:
        ValueError: when a value is not finite, a rotation has no length, or a sigma is negative.
    """
    _require_finite("positions", gaussians.means)
    _require_finite("rotations", gaussians.quats)
    _require_finite("colours", gaussians.colors)
    _require_finite("opacities", gaussians.opacities)
    means, quats = rotate_up_axis(gaussians.means, normalized(gaussians.quats), up, inverse=True)
    return Splats(
        means=to_torch(means),
        scales=to_torch(_positive(gaussians.scales)),
        quats=to_torch(quats),
        opacities=to_torch(np.clip(gaussians.opacities, 0, 1)),
        colors=to_torch(np.clip(gaussians.colors, 0, 1)),
    )


def normalized(quats: NDArray[np.floating]) -> NDArray[np.floating]:
    """Unit quaternions; those of unit length to float32 are returned unchanged, so that reading again changes nothing.

    Raises:
        ValueError: when one has no length.
    """
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(quats, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise InvalidInputError("it has rotations of absurd length")
    zero = int((lengths < 1e-12).sum())
    if zero:
        raise InvalidInputError(f"{zero} of its vertices have a rotation of length zero")
    return np.where(np.abs(lengths - 1) < 1e-6, quats, quats / lengths)


def to_torch(values: NDArray[np.floating]) -> Tensor:
    """A float32 tensor on the CPU, sharing memory where it can."""
    return torch.from_numpy(np.require(values, dtype=np.float32, requirements=["C", "W"]))


def _to_numpy(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().to(device="cpu", dtype=torch.float64).numpy()


def _require_finite(name: str, values: NDArray[np.floating]) -> None:
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(np.float32, copy=False))
    if not finite.all():
        bad = int((~finite.reshape(len(values), -1).all(axis=1)).sum())
        raise InvalidInputError(f"{bad} of its Gaussians have NaN or infinite {name}")


def _positive(scales: NDArray[np.floating]) -> NDArray[np.float32]:
    _require_finite("sizes", scales)
    single = scales.astype(np.float32, copy=False)
    negative, flat = int((single < 0).sum()), int((single == 0).sum())
    if negative:
        raise InvalidInputError(f"{negative} of its sigmas are negative")
    if flat:
        logger.warning("%d sigmas of 0 are read as %g", flat, FLAT_SIGMA)
        single = np.where(single == 0, np.float32(FLAT_SIGMA), single)
    return single
