"""Flat Gaussians that cover the surface seen by the pixels of an image."""

import torch
from torch import Tensor

from diffsplat.core import tensor_checks
from diffsplat.geometry.rotations import matrix_to_quaternion
from diffsplat.geometry.vectors import cross, dot, unit

FOOTPRINT_SIGMA = 0.67
"""Deviation of a pixel's Gaussian, in distances to the next pixel's point: neighbours overlap to an even surface, also
seen from close by. Smaller ones leave gaps, larger ones fatten outlines."""
THICKNESS = 0.15
"""Deviation across the surface, as a share of the smaller one along it."""
_XYZ = -3
"""Dimension of the coordinates of images of points."""


def pixel_footprints(points: Tensor) -> tuple[Tensor, Tensor]:
    """Shape of a Gaussian for every pixel, so that together they cover the surface without holes.

    Seen at a slant, the points of neighbouring pixels lie far apart, and round Gaussians would leave a pattern of
    holes. A pixel's covariance is ``s^2 (x x' + y y')`` of the steps ``x`` and ``y`` to the next points in its row
    and column: what a round Gaussian over the pixels becomes on the surface, to first order (Zwicker et al. 2001,
    "Surface Splatting").
    Of the two steps to either side the shorter is taken: it does not cross the edge to what lies behind.

    Args:
        points: ``[*B, 3, H, W]`` world points of the pixels, at least two by two, floating point. Where neighbours
            coincide or lie on a line, deviations are zero and the rotation is arbitrary.

    Returns:
        Deviations ``[*B, 3, H, W]``, world units, longest first and the last across the surface; rotations
        ``[*B, 4, H, W]``, unit quaternions ``w x y z``.

    Raises:
        ValueError: for another shape.
    """
    tensor_checks.require_shape("pixel_footprints", "points", points, (3, None, None))
    if min(points.shape[-2:]) < 2:
        raise ValueError(f"pixel_footprints got points {tuple(points.shape)}, expected at least 2 x 2 pixels")
    right, down = _shorter_step(points, -1), _shorter_step(points, -2)
    normal = unit(cross(right, down, _XYZ), _XYZ)
    along = unit(right, _XYZ)
    across = cross(normal, along, _XYZ)
    # Steps in the basis (along, across): right = (a, 0), down = (b, c). Half the angle of the Gram matrix turns
    # that basis to the covariance's axes.
    a, b, c = dot(right, along, _XYZ), dot(down, along, _XYZ), dot(down, across, _XYZ)
    angle = 0.5 * torch.atan2(2 * b * c, a * a + b * b - c * c)
    axis = torch.cos(angle) * along + torch.sin(angle) * across
    axes = torch.stack([axis, cross(normal, axis, _XYZ), normal], dim=_XYZ)
    mean = (a * a + b * b + c * c) / 2
    longest = (mean + (mean.square() - (a * c).square()).clamp_min(0).sqrt()).sqrt()
    shortest = (a * c).abs() / longest.clamp_min(torch.finfo(points.dtype).tiny)
    sigmas = FOOTPRINT_SIGMA * torch.cat([longest, shortest, THICKNESS * shortest], dim=_XYZ)
    return sigmas, matrix_to_quaternion(axes.movedim((-4, -3), (-2, -1))).movedim(-1, _XYZ)


def _shorter_step(points: Tensor, dim: int) -> Tensor:
    """The shorter of the steps to the next and from the previous of ``[*B, 3, H, W]`` points along ``dim``."""
    steps = points.diff(dim=dim)
    count = steps.shape[dim]
    ahead = torch.cat([steps, steps.narrow(dim, count - 1, 1)], dim=dim)
    behind = torch.cat([steps.narrow(dim, 0, 1), steps], dim=dim)
    return torch.where(dot(ahead, ahead, _XYZ) <= dot(behind, behind, _XYZ), ahead, behind)
