"""Per-pixel Gaussians of several views: what the reconstructor predicts and the autoencoder compresses."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.core import tensor_checks
from diffsplat.core.cameras import Cameras, PixelGrid
from diffsplat.core.splats import Splats

GRID_CHANNELS = 12
"""Channels of a splat grid: colour 3, scale 3, rotation 4, opacity 1, depth 1, in this order."""

RGB = slice(0, 3)
SCALE = slice(3, 6)
ROTATION = slice(6, 10)
OPACITY = slice(10, 11)
DEPTH = slice(11, 12)

MIN_SIGMA = 0.0005
"""Sigma of a scale channel at +1, world units."""
MAX_SIGMA = 0.02
"""Sigma of a scale channel at -1, world units."""


@dataclass(frozen=True)
class SplatGrid:
    """A Gaussian for every pixel of ``V`` views, all channels in [-1, 1].

    Args:
        values: ``[B, V, 12, H, W]``; decoding of each channel as in DiffSplat (ICLR 2025, section 3.1 and the
            released code's ranges): colour, opacity ``x * 0.5 + 0.5``; sigma falls linearly from 0.02 at -1 to
            0.0005 at +1; rotation is a quaternion ``w x y z`` of any length; depth is camera z minus the
            camera's distance from the origin.

    Raises:
        ValueError: for a wrong shape, NaN, or values outside [-1, 1].
    """

    values: Tensor

    def __post_init__(self) -> None:
        shape = (None, None, GRID_CHANNELS, None, None)
        tensor_checks.require_field("SplatGrid", "values", self.values, shape)
        tensor_checks.require_range("SplatGrid", "values", self.values, -1.0, 1.0)

    @property
    def views(self) -> int:
        """Number of views ``V``."""
        return self.values.shape[1]

    def pack(self) -> Tensor:
        """``[B * V, 12, H, W]``: every view an image of its own."""
        return self.values.flatten(0, 1)

    @classmethod
    def unpack(cls, packed: Tensor, views: int) -> Self:
        """Undo :meth:`pack`: a grid ``[B, V]`` of ``[B * V, 12, H, W]``.

        Raises:
            ValueError: the packed views are no multiple of the number of views.
        """
        if views < 1 or packed.shape[0] % views:
            raise ValueError(f"{packed.shape[0]} packed views cannot be split into objects of {views} views")
        return cls(packed.unflatten(0, (-1, views)))

    def to_splats(self, cameras: Cameras, grid: PixelGrid = "center") -> Splats:
        """Decode into Gaussians in world space.

        Args:
            cameras: ``[B, V]`` cameras of the grid's views; their size is taken from the grid.
            grid: pixel grid of the unprojection.

        Returns:
            Splats ``[B, V * H * W]``, views outermost, rows before columns.
        """
        values = _precise(self.values)
        return Splats(
            means=_per_gaussian(self.points(cameras, grid)),
            scales=_per_gaussian(decode_scale(values[:, :, SCALE])),
            quats=functional.normalize(_nonzero(_per_gaussian(values[:, :, ROTATION])), dim=-1),
            opacities=_per_gaussian(unit_range(values[:, :, OPACITY])).squeeze(-1),
            colors=_per_gaussian(unit_range(values[:, :, RGB])),
        )

    def points(self, cameras: Cameras, grid: PixelGrid = "center") -> Tensor:
        """``[B, V, 3, H, W]`` centres of the Gaussians, world units; arguments as for :meth:`to_splats`."""
        tensor_checks.require_batch("SplatGrid.points", "cameras", cameras.batch_shape, self.values.shape[:2])
        height, width = self.values.shape[-2:]
        distance = torch.linalg.vector_norm(cameras.centers, dim=-1)[..., None, None, None]
        depth = _precise(self.values[:, :, DEPTH]) + distance
        return cameras.resized(width, height).unproject(depth, grid)


def unit_range(values: Tensor) -> Tensor:
    """[-1, 1] to [0, 1]."""
    return values * 0.5 + 0.5


def decode_scale(values: Tensor) -> Tensor:
    """Scale channels in [-1, 1] to sigmas in world units; +1 is the smallest."""
    fraction = unit_range(values)
    return MIN_SIGMA * fraction + MAX_SIGMA * (1 - fraction)


def encode_scale(sigmas: Tensor) -> Tensor:
    """Sigmas in world units to scale channels, clamped to [-1, 1]."""
    fraction = (MAX_SIGMA - sigmas) / (MAX_SIGMA - MIN_SIGMA)
    return (fraction * 2 - 1).clamp(-1, 1)


def _precise(values: Tensor) -> Tensor:
    """Values in a precision that positions can be computed in."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def _per_gaussian(image: Tensor) -> Tensor:
    """``[B, V, C, H, W]`` to ``[B, V * H * W, C]``."""
    return image.movedim(2, -1).flatten(1, 3)


def _nonzero(quats: Tensor) -> Tensor:
    """Replace quaternions too short to have a direction by the identity."""
    short = torch.linalg.vector_norm(quats.detach(), dim=-1, keepdim=True) < 1e-6
    identity = torch.zeros_like(quats)
    identity[..., 0] = 1
    return torch.where(short, identity, quats)
