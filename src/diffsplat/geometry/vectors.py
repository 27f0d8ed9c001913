"""Products and lengths of vectors whose components lie along any dimension.

Those of torch are made for components next to each other in memory: of images of vectors, ``torch.linalg.cross`` and
``functional.normalize`` take many times as long.
"""

import torch
from torch import Tensor

_SHORTEST = 1e-12


def dot(left: Tensor, right: Tensor, dim: int) -> Tensor:
    """Inner products, of length 1 along ``dim``."""
    return (left * right).sum(dim=dim, keepdim=True)


def unit(vectors: Tensor, dim: int) -> Tensor:
    """Vectors of length one; zero stays zero."""
    return vectors / dot(vectors, vectors, dim).sqrt().clamp_min(_SHORTEST)


def cross(left: Tensor, right: Tensor, dim: int) -> Tensor:
    """Cross products of vectors of three components, other dimensions broadcast."""
    a, b, c = left.unbind(dim)
    x, y, z = right.unbind(dim)
    return torch.stack([b * z - c * y, c * x - a * z, a * y - b * x], dim=dim)
