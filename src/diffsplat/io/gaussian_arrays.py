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

_SHORTEST_QUATERNION = 1e-12


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
        flaws: what was passed over while decoding, a few words each.
    """

    means: NDArray[np.floating]
    scales: NDArray[np.floating]
    quats: NDArray[np.floating]
    opacities: NDArray[np.floating]
    colors: NDArray[np.floating]
    up: UpAxis | None = None
    flaws: tuple[str, ...] = ()

    def take(self, order: NDArray[np.intp] | NDArray[np.bool_]) -> "GaussianArrays":
        """The Gaussians ``order [M]``, or those of a mask ``[N]``."""
        return replace(self, **{name: getattr(self, name)[order] for name in SPLAT_FIELDS})

    @classmethod
    def concatenate(cls, parts: Sequence["GaussianArrays"]) -> "GaussianArrays":
        """The Gaussians of all parts, of which there is at least one."""
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in SPLAT_FIELDS}
        return replace(parts[0], **joined, flaws=tuple(flaw for part in parts for flaw in part.flaws))


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


def bytes_behind(count: int) -> tuple[str, ...]:
    """The flaw of a file in which ``count`` bytes follow the last Gaussian; none for 0."""
    return (f"{count} byte{'s' * (count > 1)} behind its Gaussians",) if count else ()


def without_unusable(gaussians: GaussianArrays) -> GaussianArrays:
    """Leave out Gaussians that no renderer can draw, and count them among the flaws.

    Unusable are values that are not finite in float32, rotations without a length, and negative sigmas.

    Raises:
        ValueError: when none is left.
    """
    unusable = _unusable(gaussians)
    bad = np.any(list(unusable.values()), axis=0)
    if not bad.any():
        return gaussians
    count, total = int(bad.sum()), len(bad)
    reasons = ", ".join(f"{int(rows.sum())} with {reason}" for reason, rows in unusable.items() if rows.any())
    if count == total:
        raise InvalidInputError(f"none of its {total} Gaussians is usable ({reasons})")
    flaw = f"{count} of its {total} Gaussians cannot be used ({reasons})"
    return replace(gaussians.take(~bad), flaws=(*gaussians.flaws, flaw))


def to_splats(gaussians: GaussianArrays, up: UpAxis) -> Splats:
    """Splats of float32 on the CPU with +Y up, from usable Gaussians in whose axes ``up`` points up."""
    means, quats = rotate_up_axis(gaussians.means, normalized(gaussians.quats), up, inverse=True)
    return Splats(
        means=to_torch(means),
        scales=to_torch(_positive(gaussians.scales)),
        quats=to_torch(quats),
        opacities=to_torch(np.clip(gaussians.opacities, 0, 1)),
        colors=to_torch(np.clip(gaussians.colors, 0, 1)),
    )


def normalized(quats: NDArray[np.floating]) -> NDArray[np.floating]:
    """Unit quaternions; those of unit length to float32 stay as they are, so that reading again changes nothing."""
    lengths = np.linalg.norm(quats, axis=1, keepdims=True)
    return np.where(np.abs(lengths - 1) < 1e-6, quats, quats / lengths)


def to_torch(values: NDArray[np.floating]) -> Tensor:
    """A float32 tensor on the CPU, sharing memory where it can."""
    return torch.from_numpy(np.require(values, dtype=np.float32, requirements=["C", "W"]))


def _to_numpy(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().to(device="cpu", dtype=torch.float64).numpy()


def _unusable(gaussians: GaussianArrays) -> dict[str, NDArray[np.bool_]]:
    """Masks ``[N]`` of Gaussians that cannot be drawn, by what is wrong with them."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(gaussians.quats, axis=1)
        scales = gaussians.scales.astype(np.float32, copy=False)
        return {
            "NaN or infinite positions": _not_finite(gaussians.means),
            "NaN, infinite or negative sizes": _not_finite(scales) | (scales < 0).any(axis=1),
            "NaN or infinite colours": _not_finite(gaussians.colors),
            "NaN as opacity": np.asarray(np.isnan(gaussians.opacities)),
            "rotations that are NaN, infinite or zero": ~(
                (lengths > _SHORTEST_QUATERNION) & (lengths < np.inf)
            ),
        }


def _not_finite(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    finite = np.isfinite(values.astype(np.float32, copy=False))
    return np.count_nonzero(finite, axis=1) < values.shape[1]


def _positive(scales: NDArray[np.floating]) -> NDArray[np.float32]:
    single = scales.astype(np.float32, copy=False)
    flat = int((single == 0).sum())
    if flat:
        logger.warning("%d sigmas of 0 are read as %g", flat, FLAT_SIGMA)
        single = np.where(single == 0, np.float32(FLAT_SIGMA), single)
    return single
