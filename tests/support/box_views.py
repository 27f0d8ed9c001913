"""Views of a box with a transforms.json, drawn by NumPy: where each pixel's ray enters it."""

import json
import math
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HALF = np.array([0.4, 0.3, 0.2])
"""Half extents in Blender's world: Z up."""
COLORS = np.array(
    [[[200, 60, 40], [240, 180, 60]], [[40, 120, 200], [60, 200, 120]], [[230, 230, 90], [90, 60, 160]]]
)
"""Of the faces at the negative and positive end of each axis."""
ANGLE_X = 2 * math.atan(0.5 * 1024 / 1422.222)
FIRST_AZIMUTH_DEG = 35.0
"""From +X to +Y."""


def blender_camera(azimuth_deg: float, elevation_deg: float, distance: float) -> NDArray[np.float64]:
    """``[4, 4]`` camera to world of a camera that looks at the origin."""
    a, e = math.radians(azimuth_deg), math.radians(elevation_deg)
    back = np.array([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])
    right = np.array([-math.sin(a), math.cos(a), 0.0])
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, distance * back], axis=1)
    return pose


def draw_box(
    pose: NDArray[np.float64], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
    """RGBA and normals in bytes, camera z, and points, each ``[size, size, ...]``."""
    axis = ((np.arange(size) + 0.5) / size - 0.5) * 2 * math.tan(ANGLE_X / 2)
    x, y = np.meshgrid(axis, -axis)
    rays = np.stack([x, y, -np.ones_like(x)], axis=-1) @ pose[:3, :3].T
    center = pose[:3, 3]
    with np.errstate(divide="ignore"):
        ends = np.stack([(-HALF - center) / rays, (HALF - center) / rays])
    near, far = ends.min(axis=0), ends.max(axis=0)
    face, depth = near.argmax(axis=-1), near.max(axis=-1)
    hit = depth < far.min(axis=-1)
    positive = np.take_along_axis(rays, face[..., None], -1)[..., 0] < 0
    rgba = np.zeros((size, size, 4), np.uint8)
    rgba[hit] = np.concatenate([COLORS[face, positive.astype(int)], np.full((size, size, 1), 255)], axis=-1)[
        hit
    ]
    normal = np.eye(3)[face] * np.where(positive, 1, -1)[..., None] * hit[..., None]
    points = (center + depth[..., None] * rays) * hit[..., None]
    return rgba, np.rint(normal * 127.5 + 127.5).astype(np.uint8), depth * hit, points


def write_box(
    folder: Path, *, size: int = 128, distance: float = 1.4, geometry: Literal["depth", "coord"] = "depth"
) -> None:
    """Four views around the box, 20 degrees above the horizon."""
    folder.mkdir(parents=True)
    frames = []
    for number in range(4):
        # A positive azimuth of this program turns the same way as Blender's: against the clock from above.
        pose = blender_camera(FIRST_AZIMUTH_DEG + 90 * number, 20.0, distance)
        rgba, normal, depth, points = draw_box(pose, size)
        Image.fromarray(rgba).save(folder / f"{number}.png")
        Image.fromarray(normal).save(folder / f"{number}_normal.png")
        np.save(folder / f"{number}.npy", (depth if geometry == "depth" else points).astype(np.float32))
        frames.append(
            {
                "file_path": f"{number}.png",
                "normal_file_path": f"{number}_normal.png",
                f"{geometry}_file_path": f"{number}.npy",
                "transform_matrix": pose.tolist(),
            }
        )
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": ANGLE_X, "frames": frames}))
