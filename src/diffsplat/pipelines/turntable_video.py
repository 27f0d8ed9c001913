"""The frames of a turntable video of splats."""

from collections.abc import Iterator

from torch import Tensor

from diffsplat.core import Splats
from diffsplat.geometry import turntable_cameras
from diffsplat.render import render

_FRAMES_AT_ONCE = 8


def turntable_frames(
    splats: Splats, *, frames: int, elevation_deg: float, size: int, radius: float
) -> Iterator[Tensor]:
    """``[3, size, size]`` images on white, once around the object, rendered a few at a time when asked for."""
    cameras = turntable_cameras(frames, elevation_deg, size=size, radius=radius).to(splats.device)
    for start in range(0, frames, _FRAMES_AT_ONCE):
        yield from render(splats, cameras[start : start + _FRAMES_AT_ONCE], normals=False).rgb
