"""The ``gsplat`` backend: CUDA, by the package gsplat (version 1.5 or later).

Its image model is that of :mod:`.rasterization_constants`, with two differences:

* gsplat cuts alpha at 0.999, not 0.99. Opacities are cut to 0.99 here instead. That is the same wherever the
  opacity is at most 0.99; a splat above that falls off from 0.99 at its centre, and its opacity gets no gradient.
* gsplat adds up the gradients of a splat in any order: they repeat to rounding, not bitwise.
"""

import importlib

import torch
from torch import Tensor

from diffsplat.core import Rendering
from diffsplat.errors import InvalidInputError
from diffsplat.render.backend_input import RenderTask
from diffsplat.render.rasterization_constants import ALPHA_MAX, FAR, NEAR
from diffsplat.render.splat_normals import facing_normals


def rasterize(task: RenderTask) -> Rendering:
    """Render on a CUDA device, in float32.

    Raises:
        ValueError: for splats on another device.
    """
    if task.means.device.type != "cuda":
        raise InvalidInputError(f"backend 'gsplat' got splats on {task.means.device}, expected a CUDA device")
    task = task.to(torch.float32)
    colors = task.colors
    if task.normals:
        facing = facing_normals(task)
        colors = torch.cat([colors.unsqueeze(1).expand(facing.shape), facing], dim=-1)
    images, alphas, _ = importlib.import_module("gsplat").rasterization(
        means=task.means,
        quats=task.quats,
        scales=task.scales,
        opacities=task.opacities.clamp(max=ALPHA_MAX),
        colors=colors,
        viewmats=task.world_to_camera,
        Ks=_matrices(task.intrinsics),
        width=task.width,
        height=task.height,
        near_plane=NEAR,
        far_plane=FAR,
        eps2d=0.0,
        packed=False,
        render_mode="RGB+ED",
        rasterize_mode="classic",
    )
    images, alpha = images.movedim(-1, 2), alphas.movedim(-1, 2)
    rgb = images[:, :, :3] + (1 - alpha) * task.background.to(images)[:, None, None]
    normal = images[:, :, 3:6] if task.normals else None
    return Rendering(rgb=rgb, alpha=alpha, depth=images[:, :, -1:], normal=normal)


def _matrices(intrinsics: Tensor) -> Tensor:
    """``[B, V, 3, 3]`` camera matrices of ``[B, V, 4]`` fx, fy, cx, cy."""
    fx, fy, cx, cy = intrinsics.unbind(-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    return torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one], dim=-1).unflatten(-1, (3, 3))
