"""Turntable videos: the camera goes once around an object."""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from diffsplat.core import DEFAULT_RADIUS, Splats
from diffsplat.geometry import turntable_cameras
from diffsplat.io.video_files import write_video
from diffsplat.pipelines.pipeline_output import GeneratedObject
from diffsplat.render import render

_FRAMES_AT_ONCE = 8
_SIZE = 256
_FPS = 20.0


def write_turntable(item: GeneratedObject, path: Path, *, frames: int, force: bool = False) -> None:
    """Write the turntable of a generated object, 20 frames a second, at the elevation of its views.

    Raises:
        ValueError: when the file cannot be written.
    """
    elevation = item.elevation_deg
    images = turntable_frames(
        item.splats, frames=frames, elevation_deg=elevation, size=_SIZE, radius=DEFAULT_RADIUS
    )
    write_video(images, path, fps=_FPS, force=force)


def turntable_frames(
    splats: Splats, *, frames: int, elevation_deg: float, size: int, radius: float
) -> Iterator[Tensor]:
    """``[3, size, size]`` images on white, once around the object, rendered a few at a time when asked for."""
    cameras = turntable_cameras(frames, elevation_deg, size=size, radius=radius).to(splats.device)
    for start in range(0, frames, _FRAMES_AT_ONCE):
        yield from render(splats, cameras[start : start + _FRAMES_AT_ONCE], normals=False).rgb
