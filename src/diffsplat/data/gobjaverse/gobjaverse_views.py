"""Which views of a G-Objaverse object are used, and what DiffSplat's training sees of them.

Views of an object (Qiu et al., RichDreamer, 2024):

- 0..23: once around every 15 degrees, 5 to 30 degrees above the horizon; 24 repeats 0;
- 25 from above, 26 from below;
- 27..38: once around every 30 degrees near the horizon; 39 repeats 27.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.core import DEFAULT_FOCAL, DEFAULT_RADIUS, Cameras, Views
from diffsplat.data.gobjaverse.gobjaverse_files import StoredView
from diffsplat.errors import InvalidInputError
from diffsplat.geometry import normals_to_first_view
from diffsplat.images.depth_control_map import depth_control_map

UPPER_RING = tuple(range(24))
"""Views every 15 degrees, 5 to 30 degrees above the horizon."""
LEVEL_RING = tuple(range(27, 39))
"""Views every 30 degrees near the horizon."""
VIEWS = (*UPPER_RING, 25, 26, *LEVEL_RING)
"""All different views: 24 and 39 repeat 0 and 27."""


def even_views(start: int, count: int = 4) -> tuple[int, ...]:
    """``count`` views evenly around the object, at one elevation, from the view ``start`` on.

    Args:
        start: one of 0..23 (upper ring) or 27..38 (level ring).
        count: a divisor of the ring's number of views.

    Raises:
        ValueError: ``start`` lies on no ring, or ``count`` does not divide it.
    """
    for ring in (UPPER_RING, LEVEL_RING):
        if start in ring:
            if count < 1 or len(ring) % count:
                raise InvalidInputError(f"{count} views do not lie evenly on a ring of {len(ring)}")
            step, first = len(ring) // count, ring[0]
            return tuple(first + (start - first + step * index) % len(ring) for index in range(count))
    raise InvalidInputError(f"view {start} lies on no ring, expected 0..23 or 27..38")


def choose_views(
    start: int, novel: int, seed: int | Sequence[int], present: Sequence[int] = VIEWS
) -> tuple[int, ...]:
    """Four even input views from ``start`` on, then ``novel`` others, random and without repeats.

    Args:
        start: first input view.
        novel: number of other views.
        seed: of the choice.
        present: views that may be chosen.

    Raises:
        ValueError: an input view is not present, or there are too few others.
    """
    inputs = even_views(start)
    missing = [view for view in inputs if view not in present]
    others = [view for view in present if view in VIEWS and view not in inputs]
    if missing or novel > len(others) or novel < 0:
        raise InvalidInputError(
            f"cannot choose {novel} views beside {inputs}: {len(others)} others are there, and of the four "
            f"{missing or 'all'} {'are missing' if missing else 'are there'}"
        )
    return inputs + tuple(int(view) for view in np.random.default_rng(seed).permutation(others)[:novel])


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


def stored_cameras(views: Sequence[StoredView]) -> Cameras:
    """``[V]`` cameras in the data set's own scale, Y up."""
    height, width = views[0].depth.shape[-2:]
    poses = torch.stack([view.camera_to_world for view in views])
    intrinsics = torch.tensor([DEFAULT_FOCAL, DEFAULT_FOCAL, 0.5, 0.5]).expand(len(views), 4)
    return Cameras(poses, intrinsics, width=width, height=height)


def resize(images: Tensor, size: int) -> Tensor:
    """``[V, C, H, W]`` brought to ``size`` pixels a side, bilinear with antialiasing."""
    if images.shape[-2:] == (size, size):
        return images
    return functional.interpolate(images, (size, size), mode="bilinear", antialias=True)


def mean_depth(depth: Tensor, size: int) -> Tensor:
    """``[V, 1, size, size]`` of ``[V, 1, H, W]``: means over what is hit only, 0 where nothing is."""
    share = resize((depth > 0).to(depth), size)
    return torch.where(share > 1e-3, resize(depth, size) / share.clamp_min(1e-3), 0.0)


def _stacked(views: Sequence[StoredView]) -> tuple[Tensor, Tensor, Tensor]:
    if not views:
        raise InvalidInputError("got no views, expected at least one")
    sizes = sorted({f"{view.depth.shape[-1]} x {view.depth.shape[-2]}" for view in views})
    if len(sizes) > 1:
        raise InvalidInputError(f"the views have {' and '.join(sizes)} pixels, expected one size")
    return (
        torch.stack([view.rgba for view in views]),
        torch.stack([view.normal for view in views]),
        torch.stack([view.depth for view in views]),
    )


def _on_white(values: Tensor, alpha: Tensor) -> Tensor:
    return values * alpha + (1 - alpha)
