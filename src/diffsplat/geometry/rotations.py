"""Rotation matrices and quaternions ``w x y z``."""

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.core import tensor_checks
from diffsplat.geometry.vectors import unit


def quaternion_to_matrix(quats: Tensor) -> Tensor:
    """``[*B, 3, 3]`` rotation matrices of ``[*B, 4]`` quaternions ``w x y z``, normalised first."""
    tensor_checks.require_shape("quaternion_to_matrix", "quats", quats, (4,))
    w, x, y, z = functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def matrix_to_quaternion(matrices: Tensor) -> Tensor:
    """``[*B, 4]`` unit quaternions ``w x y z`` with ``w >= 0`` of ``[*B, 3, 3]`` rotation matrices.

    Of the four ways to recover a quaternion from the matrix entries, the one that divides by the largest
    component is taken (Shepperd, "Quaternion from rotation matrix", 1978).
    """
    tensor_checks.require_shape("matrix_to_quaternion", "matrices", matrices, (3, 3))
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = (row.unbind(-1) for row in matrices.unbind(-2))
    # Four times the products of two components; ``by_w`` is the quaternion times four times its w.
    ww, xx, yy, zz = 1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22
    wx, wy, wz, xy, xz, yz = m21 - m12, m02 - m20, m10 - m01, m10 + m01, m02 + m20, m21 + m12
    by_w, by_x, by_y, by_z = map(
        torch.stack, ([ww, wx, wy, wz], [wx, xx, xy, xz], [wy, xy, yy, yz], [wz, xz, yz, zz])
    )
    by_w_or_x, by_y_or_z = torch.where(ww >= xx, by_w, by_x), torch.where(yy >= zz, by_y, by_z)
    best = torch.where(torch.maximum(ww, xx) >= torch.maximum(yy, zz), by_w_or_x, by_y_or_z)
    quats = unit(best, dim=0)
    return torch.where(quats[:1] < 0, -quats, quats).movedim(0, -1)


def rotation_onto(directions: Tensor) -> Tensor:
    """``[*B, 4]`` shortest rotations ``w x y z`` that turn +Z onto unit ``directions [*B, 3]``.

    At -Z, where every half turn about a horizontal axis is shortest, the turn about +X is returned.
    """
    tensor_checks.require_shape("rotation_onto", "directions", directions, (3,))
    x, y, z = directions.unbind(-1)
    opposite = z < -1 + 1e-6
    quats = torch.stack([1 + z, -y, x, torch.zeros_like(z)], dim=-1)
    half_turn = torch.zeros_like(quats)
    half_turn[..., 1] = 1
    return functional.normalize(torch.where(opposite.unsqueeze(-1), half_turn, quats), dim=-1)


def multiply_quaternions(left: Tensor, right: Tensor) -> Tensor:
    """Hamilton product of ``[*B, 4]`` quaternions ``w x y z``: the rotation ``right`` followed by ``left``."""
    a, b, c, d = left.unbind(-1)
    w, x, y, z = right.unbind(-1)
    product = [
        *(a * w - b * x - c * y - d * z, a * x + b * w + c * z - d * y),
        *(a * y - b * z + c * w + d * x, a * z + b * y - c * x + d * w),
    ]
    return torch.stack(product, dim=-1)
