"""Training samples of G-Objaverse as the original makes them, checked by its recordings: an oracle for shards."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffsplat.core import DEFAULT_RADIUS, Views
from diffsplat.data.gobjaverse.gobjaverse_files import StoredView
from diffsplat.data.gobjaverse.gobjaverse_views import mean_depth, resize, stored_cameras
from diffsplat.geometry import normals_to_first_view
from diffsplat.images.depth_control_map import depth_control_map


def training_views(views: Sequence[StoredView], *, size: int, prompt: str = "") -> Views:
    """Views as the original's training sees them, a batch of one.

    The world is turned until the first view is at azimuth 0 and scaled until it is 1.4 from the origin. Points
    are those of the legacy pixel grid. Normals and points are composited on white twice, before and after they
    are brought to ``size`` with antialiasing; pictures once, before.

    Args:
        views: the first four are usually even.
        size: pixels per side.
        prompt: caption.

    Raises:
        ValueError: there is no view, or the views differ in size.
    """
    rgba, normal, depth = _stacked(views)
    cameras = stored_cameras(views)
    turned = cameras.relative_to_first(DEFAULT_RADIUS)
    alpha = rgba[:, 3:]
    depth = depth * (DEFAULT_RADIUS / torch.linalg.vector_norm(cameras.centers[0]))
    mask = resize(alpha, size)
    maps = [normals_to_first_view(normal, cameras), turned.unproject(depth, "legacy")]
    normals, points = (
        _on_white(resize(_on_white(vectors * 0.5 + 0.5, alpha), size), mask).clamp(0, 1) for vectors in maps
    )
    batched = turned.resized(size, size).map(lambda tensor: tensor[None])
    return Views(
        image=resize(_on_white(rgba[:, :3], alpha), size)[None],
        mask=mask[None],
        normal=normals[None],
        coord=points[None],
        depth=mean_depth(depth, size)[None],
        cameras=batched,
        prompt=(prompt,),
    )


def training_depth_maps(views: Sequence[StoredView], *, size: int) -> Tensor:
    """``[V, 3, size, size]`` depth control maps that go with :func:`training_views`."""
    rgba, _, depth = _stacked(views)
    return _on_white(resize(depth_control_map(depth), size), resize(rgba[:, 3:], size))


def _stacked(views: Sequence[StoredView]) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.stack([view.rgba for view in views]),
        torch.stack([view.normal for view in views]),
        torch.stack([view.depth for view in views]),
    )


def _on_white(values: Tensor, alpha: Tensor) -> Tensor:
    return values * alpha + (1 - alpha)
