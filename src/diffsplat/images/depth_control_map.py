"""Depth control maps: depth as a grey image."""

import torch
from torch import Tensor

from diffsplat.core import tensor_checks


def depth_control_map(depth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Depth as DiffSplat's depth-controlled models see it: near is bright, the background white.

    Each view is divided by its own largest depth and inverted, so the farthest point of an object is black.

    Args:
        depth: ``[*B, 1, H, W]`` camera z of any unit, 0 where nothing is.
        mask: ``[*B, 1, H, W]`` coverage 0..1 to composite on white with; where the depth is not 0 when None.

    Returns:
        ``[*B, 3, H, W]`` grey in 0..1; all white for a view that shows nothing.

    Raises:
        ValueError: for shapes that do not fit each other, NaN, a negative depth, or a mask outside 0..1.
    """
    tensor_checks.require_shape("depth_control_map", "depth", depth, (1, None, None))
    tensor_checks.require_finite("depth_control_map", "depth", depth)
    tensor_checks.require_range("depth_control_map", "depth", depth, 0.0, float("inf"))
    coverage = (depth > 0).to(depth) if mask is None else mask
    tensor_checks.require_shape("depth_control_map", "mask", coverage, (1, *depth.shape[-2:]))
    tensor_checks.require_batch("depth_control_map", "mask", coverage.shape[:-3], depth.shape[:-3])
    tensor_checks.require_range("depth_control_map", "mask", coverage, 0.0, 1.0)
    farthest = depth.amax(dim=(-2, -1), keepdim=True)
    nearness = 1 - depth / torch.where(farthest > 0, farthest, 1.0)
    return (nearness * coverage + (1 - coverage)).expand(*depth.shape[:-3], 3, *depth.shape[-2:])
