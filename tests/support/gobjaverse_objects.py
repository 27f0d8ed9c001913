"""Objects in the public layout of G-Objaverse: one ball, seen by all forty cameras."""

import json
import math
from pathlib import Path

import numpy as np
import OpenEXR
from numpy.typing import NDArray
from PIL import Image

BALL = np.array([0.05, 0.1, -0.08])
"""Centre of the ball, Y up."""
RADIUS = 0.35
UPPER_DISTANCE, LEVEL_DISTANCE = 1.9, 1.6
SIZE = 24
FOCAL = 1 / (2 * math.tan(0.6911112607562143 / 2))


def stands(number: int) -> tuple[float, float, float]:
    """Azimuth and elevation in degrees, and distance, of a view."""
    if number in (25, 26):
        return 0.0, 89.0 if number == 25 else -89.0, UPPER_DISTANCE
    if number < 25:
        return number % 24 * 15.0, 20.0, UPPER_DISTANCE
    return 5.0 + (number - 27) % 12 * 30.0, 2.0, LEVEL_DISTANCE


def pose(number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right, down and forward axes as columns, and the place of a camera, Y up."""
    azimuth, elevation, distance = stands(number)
    a, e = math.radians(azimuth), math.radians(elevation)
    toward = np.array([math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)])
    right = np.array([math.cos(a), 0.0, -math.sin(a)])
    return np.stack([right, np.cross(-toward, right), -toward], axis=1), toward * distance


def z_up(vector: NDArray[np.float64]) -> list[float]:
    """A vector of the Y-up world in that of the files."""
    return [float(vector[0]), float(-vector[2]), float(vector[1])]


def write_view(folder: Path, number: int) -> None:
    """All files of a view, the ball's rays solved exactly at pixel centres."""
    axes, origin = pose(number)
    steps = (np.arange(SIZE) + 0.5) / SIZE - 0.5
    x, y = np.meshgrid(steps / FOCAL, steps / FOCAL)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ axes.T
    offset = origin - BALL
    a, b, c = (rays * rays).sum(-1), (rays * offset).sum(-1), offset @ offset - RADIUS**2
    hit = b * b > a * c
    depth = np.where(hit, (-b - np.sqrt(np.maximum(b * b - a * c, 0))) / a, 0.0)
    normal = np.where(hit[..., None], (origin + rays * depth[..., None] - BALL) / RADIUS, 0.0)
    # The X axis of the normals points the other way.
    channels = {"R": -normal[..., 0], "G": normal[..., 1], "B": normal[..., 2], "A": depth}
    stem = folder / "campos_512_v4" / f"{number:05d}" / f"{number:05d}"
    stem.parent.mkdir(parents=True)
    names = dict(zip(("x", "y", "z"), axes.T, strict=True)) | {"origin": origin}
    values = {name: z_up(vector) for name, vector in names.items()}
    stem.with_suffix(".json").write_text(
        json.dumps({**values, "x_fov": 0.6911112607562143, "max_depth": 5.0})
    )
    rgba = np.zeros((SIZE, SIZE, 4), dtype=np.uint8)
    rgba[hit] = (200, 100, 20 + number, 255)
    Image.fromarray(rgba).save(stem.with_suffix(".png"))
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    planes = {name: np.ascontiguousarray(plane, dtype=np.float32) for name, plane in channels.items()}
    OpenEXR.File(header, planes).write(f"{stem}_nd.exr")


def write_object(folder: Path) -> Path:
    """A whole object."""
    for number in range(40):
        write_view(folder, number)
    return folder


def view_file(folder: Path, number: int, ending: str) -> Path:
    return folder / "campos_512_v4" / f"{number:05d}" / f"{number:05d}{ending}"
