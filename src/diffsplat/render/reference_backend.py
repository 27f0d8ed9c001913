"""The ``reference`` backend: plain PyTorch, any floating-point type, any device.

It is the oracle of the other backends, for values and gradients, and the slow stand-in on devices they lack.
Every pair of a splat and a pixel that the splat may reach is one entry of a long list; the pairs are sorted by
pixel, keeping the splats' order by depth, and blended along the list. All gradients are PyTorch's own.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from diffsplat.core import Rendering
from diffsplat.geometry.rotations import quaternion_to_matrix
from diffsplat.render.backend_input import RenderTask
from diffsplat.render.rasterization_constants import (
    ALPHA_MAX,
    ALPHA_MIN,
    FAR,
    FRUSTUM_MARGIN,
    NEAR,
    TRANSMITTANCE_STOP,
)
from diffsplat.render.splat_normals import facing_normals

_PAIRS_AT_ONCE = 4_000_000


class _ProjectedSplats(NamedTuple):
    """Gaussians projected into one view, front to back."""

    centers: Tensor  # [M, 2] pixels
    conics: Tensor  # [M, 3] entries xx, xy, yy of the inverse covariance, pixels^-2
    opacities: Tensor  # [M]
    features: Tensor  # [M, F]
    boxes: Tensor  # [M, 4] first and end column, first and end row of the pixels reached; whole numbers


def rasterize(task: RenderTask) -> Rendering:
    """Render with PyTorch operations only, in the type of the splats."""
    task = task.to(task.means.dtype)
    facing = facing_normals(task) if task.normals else None
    objects, views = task.intrinsics.shape[:2]
    channels = 8 if task.normals else 5
    images = [_render_view(task, b, v, facing) for b in range(objects) for v in range(views)]
    blended = torch.stack(images) if images else task.means.new_zeros(0)
    blended = blended.reshape(objects, views, task.height, task.width, channels).movedim(-1, 2)
    alpha = blended[:, :, :1]
    covered = alpha > 0
    depth = torch.where(covered, blended[:, :, 4:5] / torch.where(covered, alpha, 1), 0)
    rgb = blended[:, :, 1:4] + (1 - alpha) * task.background.to(blended)[:, None, None]
    normal = blended[:, :, 5:] if task.normals else None
    return Rendering(rgb=rgb, alpha=alpha, depth=depth, normal=normal)


def _render_view(task: RenderTask, b: int, v: int, facing: Tensor | None) -> Tensor:
    """``[H, W, 1 + F]`` sum of weights, and weighted sums of colour, depth and normal, of one view."""
    projected = _project(task, b, v, facing)
    rows = _band_limits(projected.boxes, task.height)
    bands = []
    for first, end in itertools.pairwise(rows):
        if len(rows) > 2 and torch.is_grad_enabled():
            # Memory for one band at a time: the backward pass computes the others again.
            band = checkpoint(_blend_band, projected, first, end, task.width, use_reentrant=False)
        else:
            band = _blend_band(projected, first, end, task.width)
        bands.append(torch.as_tensor(band))
    return torch.cat(bands)


def _project(task: RenderTask, b: int, v: int, facing: Tensor | None) -> _ProjectedSplats:
    """EWA projection (Zwicker et al. 2002, section 5) of the Gaussians that one camera can see."""
    rotation, translation = task.world_to_camera[b, v, :3, :3], task.world_to_camera[b, v, :3, 3]
    focal, middle = task.intrinsics[b, v, :2], task.intrinsics[b, v, 2:]
    with torch.no_grad():
        z = (task.means[b] @ rotation.mT + translation)[:, 2]
        seen = (z > NEAR) & (z <= FAR) & (task.opacities[b] >= ALPHA_MIN)
        index = torch.nonzero(seen).squeeze(1)
        index = index[torch.argsort(z[index], stable=True)]
    points = task.means[b, index] @ rotation.mT + translation
    z = points[:, 2]
    tangents = points[:, :2] / z[:, None]
    centers = tangents * focal + middle
    size = focal.new_tensor([task.width, task.height])
    low = -(middle + FRUSTUM_MARGIN * size) / focal
    high = (size - middle + FRUSTUM_MARGIN * size) / focal
    clamped = torch.minimum(torch.maximum(tangents, low), high)
    zero = torch.zeros_like(z)
    x_row = focal[0] / z, zero, -focal[0] * clamped[:, 0] / z
    y_row = zero, focal[1] / z, -focal[1] * clamped[:, 1] / z
    derivative = torch.stack([*x_row, *y_row], dim=-1).unflatten(-1, (2, 3))
    axes = quaternion_to_matrix(task.quats[b, index]) * task.scales[b, index].unsqueeze(-2)
    spread = derivative @ rotation @ axes
    covariance = spread @ spread.mT
    xx, xy, yy = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    determinant = xx * yy - xy * xy
    conics = torch.stack([yy, -xy, xx], dim=-1) / determinant[:, None]
    features = [task.colors[b, index], z[:, None]] + ([] if facing is None else [facing[b, v, index]])
    opacities = task.opacities[b, index]
    boxes = _reach(centers, torch.stack([xx, yy], dim=-1), opacities, size)
    boxes[~(determinant.detach() > 0)] = 0
    return _ProjectedSplats(centers, conics, opacities, torch.cat(features, dim=-1), boxes)


@torch.no_grad()
def _reach(centers: Tensor, variances: Tensor, opacities: Tensor, size: Tensor) -> Tensor:
    """``[M, 4]`` pixels where alpha may reach its least value, one pixel more to be safe against rounding."""
    deviations = torch.sqrt(2 * torch.log(opacities / ALPHA_MIN).clamp(min=0))[:, None] * variances.sqrt()
    first = torch.minimum((centers - deviations - 1.5).ceil().clamp(min=0), size)
    end = torch.minimum((centers + deviations + 1.5).floor().clamp(min=0), size)
    return torch.stack([first[:, 0], end[:, 0], first[:, 1], end[:, 1]], dim=-1).long()


def _band_limits(boxes: Tensor, height: int) -> list[int]:
    """Rows where the image is cut so that no band has many more pairs than can be held in memory at once."""
    widths = (boxes[:, 1] - boxes[:, 0]).clamp(min=0)
    change = torch.zeros(height + 1, dtype=torch.long, device=boxes.device)
    change.index_add_(0, boxes[:, 2], widths).index_add_(0, boxes[:, 3], -widths)
    pairs = change.cumsum(0)[:height].cumsum(0).tolist()
    limits = [0]
    taken = 0
    for row in range(1, height):
        if pairs[row] - taken > _PAIRS_AT_ONCE:
            limits.append(row)
            taken = pairs[row - 1]
    return [*limits, height]


def _blend_band(splats: _ProjectedSplats, first: int, end: int, width: int) -> Tensor:
    """``[end - first, width, 1 + F]`` blended weights and features of a band of rows."""
    splat, x, y = _pairs(splats.boxes, first, end)
    with torch.no_grad():
        reached = _alpha(splats, splat, x, y) >= ALPHA_MIN
        splat, x, y = splat[reached], x[reached], y[reached]
        pixel = (y - first) * width + x
        order = torch.argsort(pixel, stable=True)
        splat, x, y, pixel = splat[order], x[order], y[order], pixel[order]
    alpha = _alpha(splats, splat, x, y).clamp(max=ALPHA_MAX)
    transmittance = _transmittance(alpha, pixel)
    with torch.no_grad():
        kept = transmittance * (1 - alpha) > TRANSMITTANCE_STOP
    weight = torch.where(kept, alpha * transmittance, 0)
    values = torch.cat([torch.ones_like(weight)[:, None], splats.features[splat]], dim=-1)
    blended = splats.features.new_zeros((end - first) * width, values.shape[-1])
    return blended.index_add(0, pixel, weight[:, None] * values).unflatten(0, (end - first, width))


def _pairs(boxes: Tensor, first: int, end: int) -> tuple[Tensor, Tensor, Tensor]:
    """Splat, column and row of every pair in a band of rows, splat by splat."""
    columns = (boxes[:, 1] - boxes[:, 0]).clamp(min=0)
    top = boxes[:, 2].clamp(min=first)
    counts = columns * (boxes[:, 3].clamp(max=end) - top).clamp(min=0)
    splat = torch.repeat_interleave(torch.arange(len(boxes), device=boxes.device), counts)
    start = counts.cumsum(0) - counts
    index = torch.arange(len(splat), device=boxes.device) - start[splat]
    return splat, boxes[splat, 0] + index % columns[splat], top[splat] + index // columns[splat]


def _alpha(splats: _ProjectedSplats, splat: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Alpha of each pair before the cut: opacity times the Gaussian at the pixel's centre."""
    dx, dy = (torch.stack([x, y], dim=-1) + 0.5 - splats.centers[splat]).unbind(-1)
    xx, xy, yy = splats.conics[splat].unbind(-1)
    exponent = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
    return splats.opacities[splat] * torch.exp(-exponent.clamp(min=0))


def _transmittance(alpha: Tensor, pixel: Tensor) -> Tensor:
    """Transmittance in front of each pair: what the earlier pairs of its pixel let through; ``pixel`` is sorted."""
    # Sums over a long list lose digits, float64 has enough of them.
    logs = torch.log1p(-alpha.double())
    before = logs.cumsum(0) - logs
    starts = torch.ones_like(pixel, dtype=torch.bool)
    starts[1:] = pixel[1:] != pixel[:-1]
    group = starts.cumsum(0) - 1
    return torch.exp(before - before[starts][group]).to(alpha.dtype)
