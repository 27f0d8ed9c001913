"""Views of a G-Objaverse object: their numbers, cameras and resampling.

Views of an object (Qiu et al., RichDreamer, 2024):

- 0..23: once around every 15 degrees, 5 to 30 degrees above the horizon; 24 repeats 0;
- 25 from above, 26 from below;
- 27..38: once around every 30 degrees near the horizon; 39 repeats 27.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.core import DEFAULT_FOCAL, Cameras
from diffsplat.data.gobjaverse.gobjaverse_files import StoredView

UPPER_RING = tuple(range(24))
"""Views every 15 degrees, 5 to 30 degrees above the horizon."""
LEVEL_RING = tuple(range(27, 39))
"""Views every 30 degrees near the horizon."""
RINGS = tuple(
    ring[start :: len(ring) // 4] for ring in (UPPER_RING, LEVEL_RING) for start in range(len(ring) // 4)
)
"""All groups of four even views: six on the upper ring, three on the level one."""
VIEWS = (*UPPER_RING, 25, 26, *LEVEL_RING)
"""All different views: 24 and 39 repeat 0 and 27."""


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
