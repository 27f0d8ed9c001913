"""Splats that lie on shapes of known form."""

import math

import numpy as np
import torch

from diffsplat.core import Splats
from diffsplat.geometry.rotations import rotation_onto


def disks(points: np.ndarray, normals: np.ndarray, area: float, color: np.ndarray | None = None) -> Splats:
    """Flat Gaussians on a surface, dense enough to hide what is behind it."""
    count = len(points)
    sigma = math.sqrt(area / count)
    normals_ = torch.as_tensor(normals, dtype=torch.float32)
    colors = torch.full((count, 3), 0.5) if color is None else torch.as_tensor(color, dtype=torch.float32)
    return Splats(
        torch.as_tensor(points, dtype=torch.float32),
        torch.tensor([sigma, sigma, 0.1 * sigma]).expand(count, 3).contiguous(),
        rotation_onto(normals_),
        torch.full((count,), 0.95),
        colors,
    )


def colored_sphere(count: int = 6000, radius: float = 0.4, keep: float = 1.0) -> Splats:
    """A sphere, above ``-keep`` of its radius; red where x is above zero, else blue."""
    index = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * index / count), np.pi * (1 + 5**0.5) * index
    normals = np.stack([np.cos(turn) * np.sin(polar), np.cos(polar), np.sin(turn) * np.sin(polar)], axis=1)
    normals = normals[normals[:, 1] > -keep]
    color = np.where(normals[:, :1] > 0, [[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]])
    return disks(normals * radius, normals, 4 * np.pi * radius**2 * len(normals) / count, color)
