"""Normal integration: bending a surface that a camera sees until it has given normals."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from diffsplat.core import Cameras, tensor_checks
from diffsplat.geometry.vectors import dot, unit

_STIFFNESS = 1e-3
"""Weight of a pixel's earlier depth, where the step to a neighbour that faces the camera has 1: normals decide what is
smaller than some thirty pixels, earlier depths the rest."""
_ITERATIONS = 60
"""Of the solver."""
_JUMP = 0.1
"""Difference of the logarithm of depth between neighbours, beyond what normals say, that is taken for a jump: from
something in front to what lies behind it, of which normals know nothing."""
_GRAZING = 0.05
"""Cosine between a normal and the direction to the camera up to which it says nothing about depths."""
_XYZ = -3


@dataclass(frozen=True)
class DepthSteps:
    """Steps of the logarithm of depth from pixel to pixel, as they follow from normals.

    Args:
        steps: ``[2, H, W]`` to the next pixel in the row, and to the next in the column.
        weights: ``[2, H, W]`` from 0, where a step is unknown, to 1; 0 where there is no next pixel.
    """

    steps: Tensor
    weights: Tensor

    @classmethod
    def of_normals(cls, normals: Tensor, known: Tensor, camera: Cameras) -> Self:
        """Steps over a surface of these normals.

        The depths at which rays ``r`` and ``s`` meet a plane of normal ``n`` are to each other as ``n s`` to ``n r``
        (Durou and Courteille 2007, "Integration of a normal field without boundary condition"). Between two pixels
        the plane has the mean of their normals.

        Args:
            normals: ``[3, H, W]`` in world axes, of any length.
            known: ``[1, H, W]`` True where they are known.
            camera: a single one, of ``H x W`` pixels.

        Raises:
            ValueError: for another shape.
        """
        size = (camera.height, camera.width)
        tensor_checks.require_shape("DepthSteps.of_normals", "normals", normals, (3, *size))
        tensor_checks.require_shape("DepthSteps.of_normals", "known", known, (1, *size))
        points = camera.unproject(torch.ones_like(known, dtype=camera.dtype))
        rays = (points - camera.centers[:, None, None]).to(normals)
        normals = unit(normals, _XYZ)
        facing = -dot(normals, unit(rays, _XYZ), _XYZ)
        sure = torch.where(known & (facing > _GRAZING), facing, 0.0)
        weights = torch.minimum(sure, _next(sure[0]))
        weights[0, :, -1] = weights[1, -1] = 0
        # From here on components come first, then both directions.
        planes = normals[:, None] + torch.stack([_next(axis) for axis in normals])
        next_rays = torch.stack([_next(axis) for axis in rays])
        ratio = (planes * rays[:, None]).sum(dim=0) / (planes * next_rays).sum(dim=0)
        return cls(torch.where(weights > 0, ratio, 1.0).log(), weights)

    def applied(self, depth: Tensor) -> Tensor:
        """Depths ``[*B, H, W]`` above zero, bent until their steps are these, and changed as little as that takes.

        They minimise the weighted squared errors of the steps and, weakly, the squared changes of the logarithms of
        depth. A step that the depths contradict by far hardly counts (Welsch's weight). Conjugate gradients,
        preconditioned with the diagonal, stop before they have reached the minimum: what is then left are errors as
        wide as the object.
        """
        before = depth.log()
        errors = self.steps - _differences(before)
        weights = self.weights * torch.exp(-((errors / _JUMP) ** 2))
        residual = _adjoint(weights * errors)
        diagonal = _adjoint(weights) + 2 * weights.sum(dim=-3) + _STIFFNESS
        change, direction = torch.zeros_like(before), residual / diagonal
        product = _inner(residual, direction)
        for _ in range(_ITERATIONS):
            pushed = _adjoint(weights * _differences(direction)) + _STIFFNESS * direction
            length = product / _inner(direction, pushed)
            change, residual = change + length * direction, residual - length * pushed
            scaled = residual / diagonal
            previous, product = product, _inner(residual, scaled)
            direction = scaled + product / previous * direction
        return (before + change).exp()


def _next(image: Tensor) -> Tensor:
    """``[*B, 2, H, W]`` the next pixels in the row and in the column of ``[*B, H, W]``; after the last the first."""
    return torch.stack([image.roll(-1, dims=dim) for dim in (-1, -2)], dim=-3)


def _differences(image: Tensor) -> Tensor:
    """``[*B, 2, H, W]`` from each pixel of ``[*B, H, W]`` to the next."""
    return _next(image) - image[..., None, :, :]


def _adjoint(steps: Tensor) -> Tensor:
    """``[*B, H, W]`` of ``[*B, 2, H, W]``: the adjoint of :func:`_differences`, what arrives at a pixel less what
    leaves it."""
    right, down = steps.unbind(-3)
    return right.roll(1, dims=-1) + down.roll(1, dims=-2) - steps.sum(dim=-3)


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """``[*B, 1, 1]`` inner products of images, above zero so that one may divide by those of a norm."""
    return (left * right).sum(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(left.dtype).tiny)
