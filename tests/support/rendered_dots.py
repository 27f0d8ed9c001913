"""Renderings of three points as Zero-1-to-3's script lays them out, drawn by NumPy."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 64
FOCAL = 35 / 32
"""In image sizes, of the lens and sensor that Zero-1-to-3's script sets."""
POINTS = np.array([[0.35, 0.0, 0.1], [0.0, 0.3, -0.2], [-0.2, -0.1, 0.3]])
"""In Blender's world: Z up."""
COLORS = np.eye(3)
PLACES = [(1.6, 30.0, 20.0), (1.9, 120.0, -10.0), (1.5, 250.0, 60.0)]
"""Distance, azimuth from +X to +Y and elevation of the cameras."""


def blender_pose(distance: float, azimuth: float, elevation: float) -> NDArray[np.float64]:
    """``[3, 4]`` world to camera of a camera that looks at the origin, as Blender has its axes."""
    a, e = math.radians(azimuth), math.radians(elevation)
    center = distance * np.array([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])
    back = center / distance
    right = np.array([-math.sin(a), math.cos(a), 0.0])
    rotation = np.stack([right, np.cross(back, right), back])
    return np.concatenate([rotation, (-rotation @ center)[:, None]], axis=1)


def seen_at(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[3, 2]`` pixels x, y of the points."""
    x, y, z = pose[:, :3] @ POINTS.T + pose[:, 3:]
    return np.stack([(0.5 + FOCAL * x / -z) * SIZE, (0.5 - FOCAL * y / -z) * SIZE], axis=1)


def write_object(folder: Path) -> None:
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    for number, place in enumerate(PLACES):
        pose = blender_pose(*place)
        pixels = np.zeros((SIZE, SIZE, 4), np.uint8)
        for (x, y), color in zip(seen_at(pose), COLORS, strict=True):
            pixels[np.hypot(columns - x, rows - y) < 3] = [*(255 * color), 255]
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
        np.save(folder / f"{number:03}.npy", pose)
