"""Smoothing of the surfaces, outlines and colours of generated splat grids."""

from collections.abc import Iterator
from itertools import product
from math import exp, log

import torch
from torch import Tensor

from diffsplat.core import Cameras, PixelGrid, SplatGrid
from diffsplat.core.splat_grid import DEPTH, OPACITY, RGB, ROTATION, SCALE, encode_scale, unit_range
from diffsplat.errors import require
from diffsplat.geometry import pixel_footprints
from diffsplat.images.gaussian_blur import gaussian_blur, with_border

OPACITY_CONTRAST = 4.0
"""Factor of smoothed opacities around the level at which they become surface."""
OPACITY_LEVEL = 0.55
"""A little above one half: an edge pixel's Gaussian reaches over the edge, which would fatten every outline."""
COLOR_RANGE = 0.15
"""Differences of colour channels, of 2 from darkest to brightest, that count as noise of one colour."""
STEEPEST = 8.0
"""Length of a Gaussian in its widths above which it is taken to lie across a jump in depth, not on a surface. A level
surface has 5.8 where it is seen from 10 degrees above, and more where it lies higher. Small jumps, once smoothed,
have less."""
_OPACITY_SHARE = 0.3
_COLOR_SHARE = 4 / 3
_LEAST_WEIGHT = 1e-3


def clean_surfaces(
    grid: SplatGrid, cameras: Cameras, deviation: float, pixel_grid: PixelGrid = "center"
) -> SplatGrid:
    """Straighten silhouettes, smooth surfaces and colours, which a small denoiser leaves ragged.

    Opacities are smoothed by a Gaussian of less than a third of the deviation, since a wider one cuts thin legs, and
    then taken apart around :data:`OPACITY_LEVEL`, so that a veil becomes surface or nothing. Depths are smoothed by a
    Gaussian of the deviation over what is opaque, colours by one that stops where they change (Tomasi and Manduchi
    1998, "Bilateral Filtering"). The Gaussians are then laid on the surface that has come out of it; those that would
    bridge a large jump in depth become transparent. A grid holds deviations up to ``MAX_SIGMA``: at a very flat angle
    gaps remain.

    Args:
        grid: ``[B, V, 12, H, W]``.
        cameras: ``[B, V]`` of its views.
        deviation: of the Gaussian, in pixels.
        pixel_grid: where the rays of its pixels lie.

    Raises:
        ValueError: the deviation is not above zero.
    """
    require(deviation > 0, "the deviation of the smoothing", deviation, "a positive number of pixels")
    values = grid.values
    softened = gaussian_blur(values[:, :, OPACITY], deviation * _OPACITY_SHARE)
    opacity = (OPACITY_CONTRAST * (softened - (2 * OPACITY_LEVEL - 1))).clamp(-1, 1)
    weight = unit_range(opacity) + _LEAST_WEIGHT
    depth = _weighted_mean(values[:, :, DEPTH], weight, deviation).clamp(-1, 1)
    color = _even_colors(values[:, :, RGB], weight, deviation * _COLOR_SHARE)
    # Once more and closer: the first round may skip pixels.
    color = _even_colors(color, weight, deviation * _COLOR_SHARE / 2)
    smooth = torch.cat([color, values[:, :, SCALE.start : ROTATION.stop], opacity, depth], dim=2)
    return lay_gaussians(SplatGrid(smooth), cameras, pixel_grid)


def lay_gaussians(grid: SplatGrid, cameras: Cameras, pixel_grid: PixelGrid = "center") -> SplatGrid:
    """Shape the Gaussians of a grid to cover the surface of its depths; those that would bridge a jump in it vanish.

    Arguments are those of :func:`clean_surfaces`.
    """
    sigmas, rotation = pixel_footprints(grid.points(cameras, pixel_grid))
    bridging = sigmas[:, :, 0:1] > STEEPEST * sigmas[:, :, 1:2]
    opacity = grid.values[:, :, OPACITY].masked_fill(bridging, -1)
    color, depth = grid.values[:, :, RGB], grid.values[:, :, DEPTH]
    return SplatGrid(torch.cat([color, encode_scale(sigmas), rotation, opacity, depth], dim=2))


def _even_colors(color: Tensor, weight: Tensor, deviation: float) -> Tensor:
    """Mean of the like colours ``[B, V, 3, H, W]`` around each pixel, which count by ``weight [B, V, 1, H, W]``.

    Neighbours are compared by what they look like from afar, since noise would otherwise seem to be an edge. The
    deviation is that of a Gaussian over the image, in pixels.
    """
    height, width = color.shape[-2:]
    stride = max(1, int(deviation / 2))
    reach = stride * int(2 * deviation / stride)
    afar = _weighted_mean(color, weight, deviation / 3) / COLOR_RANGE
    counted = _in_a_row(torch.cat([color * weight, weight], dim=2), reach)
    # Scaled for exp2, which is several times as fast as exp.
    seen = _in_a_row(afar * (0.5 / log(2)) ** 0.5, reach)
    total, zero = counted.clone(), counted.new_zeros(())
    for down, right in _half_of_window(reach, stride):
        ahead = down * (width + 2 * reach) + right
        red, green, blue = seen[:, ahead:] - seen[:, :-ahead]
        likeness = torch.addcmul(zero, red, red, value=-1)
        likeness.addcmul_(green, green, value=-1).addcmul_(blue, blue, value=-1).exp2_()
        nearness = exp(-(down**2 + right**2) / (2 * deviation**2))
        # Each of the two pixels counts for the other.
        total[:, :-ahead].addcmul_(likeness, counted[:, ahead:], value=nearness)
        total[:, ahead:].addcmul_(likeness, counted[:, :-ahead], value=nearness)
    bordered = total.unflatten(1, (*color.shape[:2], height + 2 * reach, width + 2 * reach))
    sums = bordered[..., reach : reach + height, reach : reach + width].movedim(0, 2)
    return sums[:, :, :3] / sums[:, :, 3:]


def _in_a_row(images: Tensor, border: int) -> Tensor:
    """``[C, N]`` pixels of ``[B, V, C, H, W]`` with a border, row after row: neighbours are as far apart everywhere.

    Only a pixel of the border may have one in another row or image.
    """
    return with_border(images, border).movedim(2, 0).flatten(1)


def _half_of_window(reach: int, stride: int) -> Iterator[tuple[int, int]]:
    """Offsets ``(down, right)`` to the pixels of a square window around one that come after it, row after row."""
    window = product(range(0, reach + 1, stride), range(-reach, reach + 1, stride))
    return ((down, right) for down, right in window if (down, right) > (0, 0))


def _weighted_mean(images: Tensor, weight: Tensor, deviation: float) -> Tensor:
    """Gaussian smoothing of ``[B, V, C, H, W]`` in which a pixel counts by its ``[B, V, 1, H, W]`` weight."""
    return gaussian_blur(images * weight, deviation) / gaussian_blur(weight, deviation)
