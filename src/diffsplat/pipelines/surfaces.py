"""Cleaning of generated splat grids."""

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.core import SplatGrid
from diffsplat.core.splat_grid import DEPTH, OPACITY, unit_range

OPACITY_CONTRAST = 4.0
"""Factor of smoothed opacities around one half."""
_OPACITY_SHARE = 0.5
_LEAST_WEIGHT = 1e-3


def clean_surfaces(grid: SplatGrid, deviation: float) -> SplatGrid:
    """Straighten silhouettes and smooth depths, which a small denoiser leaves ragged.

    Opacities are smoothed by a Gaussian of half the deviation and then taken apart around one half, so that a veil
    becomes surface or nothing. Depths are smoothed by a Gaussian of the deviation over what is opaque. Colours,
    scales and rotations stay.

    Args:
        grid: ``[B, V, 12, H, W]``.
        deviation: of the Gaussian, in pixels.

    Raises:
        ValueError: the deviation is not above zero.
    """
    if not deviation > 0:
        raise ValueError(
            f"the deviation of the smoothing is {deviation}, expected a positive number of pixels"
        )
    values = grid.values
    smooth = _blurred(values[:, :, OPACITY], deviation * _OPACITY_SHARE)
    opacity = (OPACITY_CONTRAST * smooth).clamp(-1, 1)
    weight = unit_range(opacity) + _LEAST_WEIGHT
    depth = _blurred(values[:, :, DEPTH] * weight, deviation) / _blurred(weight, deviation)
    parts = [values[:, :, : OPACITY.start], opacity, depth.clamp(-1, 1)]
    return SplatGrid(torch.cat(parts, dim=2))


def _blurred(images: Tensor, deviation: float) -> Tensor:
    """Gaussian smoothing of ``[B, V, C, H, W]``, the border repeated."""
    reach = max(1, int(3 * deviation))
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / deviation).square())
    kernel = kernel / kernel.sum()
    flat = functional.pad(images.flatten(0, 2)[:, None], (reach, reach, reach, reach), mode="replicate")
    flat = functional.conv2d(functional.conv2d(flat, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return flat.reshape(images.shape)
