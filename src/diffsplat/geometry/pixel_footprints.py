"""Flat Gaussians that cover the surface seen by the pixels of an image."""

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.core import tensor_checks
from diffsplat.geometry.rotations import matrix_to_quaternion

FOOTPRINT_SIGMA = 0.7
"""Deviation of a pixel's Gaussian, in distances to the next pixel's point: neighbours overlap to an even surface."""
THICKNESS = 0.15
"""Deviation across the surface, as a share of the smaller one along it."""


def pixel_footprints(points: Tensor) -> tuple[Tensor, Tensor]:
    """Shape of a Gaussian for every pixel, so that together they cover the surface without holes.

    Seen at a slant, the points of neighbouring pixels lie far apart, and round Gaussians would leave a pattern of
    holes. A pixel's covariance is ``s^2 (x x' + y y')`` of the steps ``x`` and ``y`` to the next points in its row
    and column: what a round Gaussian over the pixels becomes on the surface, to first order (Zwicker et al. 2001,
    "Surface Splatting").
    Of the two steps to either side the shorter is taken: it does not cross the edge to what lies behind.

    Args:
        points: ``[*B, 3, H, W]`` world points of the pixels, at least two by two, floating point. Where neighbours
            coincide or lie on a line, deviations are zero and the rotation is any.

    Returns:
        Deviations ``[*B, 3, H, W]``, world units, longest first and the last across the surface; rotations
        ``[*B, 4, H, W]``, unit quaternions ``w x y z``.

    Raises:
        ValueError: for another shape.
    """
    tensor_checks.require_shape("pixel_footprints", "points", points, (3, None, None))
    if min(points.shape[-2:]) < 2:
        raise ValueError(f"pixel_footprints got points {tuple(points.shape)}, expected at least 2 x 2 pixels")
    rows = points.movedim(-3, -1)
    right, down = _shorter_step(rows, -2), _shorter_step(rows, -3)
    normal = functional.normalize(torch.linalg.cross(right, down), dim=-1)
    along = functional.normalize(right, dim=-1)
    across = torch.linalg.cross(normal, along)
    # Steps in the basis (along, across): right = (a, 0), down = (b, c). Half the angle of the Gram matrix turns
    # that basis to the covariance's axes.
    a, b, c = _dot(right, along), _dot(down, along), _dot(down, across)
    angle = 0.5 * torch.atan2(2 * b * c, a * a + b * b - c * c)
    axis = torch.cos(angle) * along + torch.sin(angle) * across
    axes = torch.stack([axis, torch.linalg.cross(normal, axis), normal], dim=-1)
    mean = (a * a + b * b + c * c) / 2
    longest = (mean + (mean.square() - (a * c).square()).clamp_min(0).sqrt()).sqrt()
    shortest = (a * c).abs() / longest.clamp_min(torch.finfo(points.dtype).tiny)
    sigmas = FOOTPRINT_SIGMA * torch.cat([longest, shortest, THICKNESS * shortest], dim=-1)
    return sigmas.movedim(-1, -3), matrix_to_quaternion(axes).movedim(-1, -3)


def _shorter_step(points: Tensor, dim: int) -> Tensor:
    """The shorter of the steps to the next and from the previous of ``[*B, H, W, 3]`` points along ``dim``."""
    steps = points.diff(dim=dim)
    count = steps.shape[dim]
    ahead = torch.cat([steps, steps.narrow(dim, count - 1, 1)], dim=dim)
    behind = torch.cat([steps.narrow(dim, 0, 1), steps], dim=dim)
    return torch.where(_dot(ahead, ahead) <= _dot(behind, behind), ahead, behind)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(dim=-1, keepdim=True)
