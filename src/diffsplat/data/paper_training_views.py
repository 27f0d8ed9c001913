"""Views as the training of the released networks prepares them."""

from __future__ import annotations

import torch
from torch import Tensor

from diffsplat.core import DEFAULT_RADIUS, Cameras, Views
from diffsplat.data.gobjaverse.gobjaverse_views import mean_depth, resize
from diffsplat.geometry import normals_to_first_view


def paper_training_views(
    rgba: Tensor, normal: Tensor, depth: Tensor, cameras: Cameras, *, size: int, prompt: str = ""
) -> Views:
    """Views as the original's training prepares them, a batch of one.

    The world is turned until the first view is at azimuth 0 and scaled until it is 1.4 from the origin. Points
    are those of the legacy pixel grid. Normals and points are composited on white twice, before and after they
    are brought to ``size`` with antialiasing; images once, before. At silhouettes they are whiter than the surface.

    Args:
        rgba: ``[V, 4, H, W]`` sRGB 0..1 with straight alpha.
        normal: ``[V, 3, H, W]`` normals in the world of the cameras.
        depth: ``[V, 1, H, W]`` camera z, 0 outside the object.
        cameras: ``[V]`` of ``H`` x ``W`` pixels.
        size: pixels per side.
        prompt: caption.
    """
    turned = cameras.relative_to_first(DEFAULT_RADIUS)
    alpha = rgba[:, 3:]
    depth = depth * (DEFAULT_RADIUS / torch.linalg.vector_norm(cameras.centers[0]))
    mask = resize(alpha, size)
    maps = [normals_to_first_view(normal, cameras), turned.unproject(depth, "legacy")]
    normals, points = (
        on_white(resize(on_white(vectors * 0.5 + 0.5, alpha), size), mask).clamp(0, 1) for vectors in maps
    )
    return Views(
        image=resize(on_white(rgba[:, :3], alpha), size)[None],
        mask=mask[None],
        normal=normals[None],
        coord=points[None],
        depth=mean_depth(depth, size)[None],
        cameras=turned.resized(size, size).map(lambda tensor: tensor[None]),
        prompt=(prompt,),
    )


def on_white(values: Tensor, alpha: Tensor) -> Tensor:
    """Values of any channels in front of 1, by their opacity."""
    return values * alpha + (1 - alpha)
