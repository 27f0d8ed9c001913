"""Rendered previews of one set of splats: views, contact sheets, turntables."""

from collections.abc import Iterator

from torch import Tensor

from diffsplat.core import Cameras, Splats
from diffsplat.geometry import turntable_cameras
from diffsplat.io.image_files import tile_images
from diffsplat.render import Backend, render

_FRAMES_AT_ONCE = 8


def still_images(splats: Splats, cameras: Cameras, backend: Backend = "auto") -> Tensor:
    """``[V, 3, H, W]`` of one set of splats on white."""
    return render(splats, cameras.to(splats.device), normals=False, backend=backend).rgb


def contact_sheet(splats: Splats, cameras: Cameras, size: int) -> Tensor:
    """``[3, size, V * size]``: the views of ``cameras [V]`` side by side."""
    return tile_images(still_images(splats, cameras.resized(size, size)))


def turntable_frames(
    splats: Splats, *, frames: int, elevation_deg: float, size: int, radius: float
) -> Iterator[Tensor]:
    """``[3, size, size]`` images once around the object, rendered a few at a time when asked for."""
    cameras = turntable_cameras(frames, elevation_deg, size=size, radius=radius)
    for start in range(0, frames, _FRAMES_AT_ONCE):
        yield from still_images(splats, cameras[start : start + _FRAMES_AT_ONCE])
