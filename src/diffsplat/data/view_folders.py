"""Folders of four posed views with their geometry, described by a ``transforms.json`` as of NeRF and nerfstudio."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsplat.core import DEFAULT_RADIUS, Cameras, Views
from diffsplat.data.gobjaverse.gobjaverse_conversion import shrunk
from diffsplat.data.gobjaverse.gobjaverse_files import StoredView
from diffsplat.data.object_dataset import ViewComposition, to_views
from diffsplat.data.paper_training_views import paper_training_views
from diffsplat.data.shard_reading import Pixels
from diffsplat.data.shard_schema import depth_steps, normal_bytes
from diffsplat.errors import InvalidInputError, explained_errors
from diffsplat.geometry.blender_poses import from_blender, y_up
from diffsplat.io.image_files import read_image, to_pixels
from diffsplat.io.json_files import read_json
from diffsplat.io.numpy_files import read_array

DESCRIPTION = "transforms.json"


def read_view_folder(folder: Path, *, size: int, composition: ViewComposition = "exact") -> Views:
    """Four views of an object as a batch of one, in the world of the first of them.

    Each of the ``frames`` has ``file_path`` (an image, transparent outside the object), ``normal_file_path`` (an image
    of world normals as ``n * 0.5 + 0.5``), ``transform_matrix`` (camera to world, Z up; camera x right, y up, z
    backward) and ``depth_file_path`` (``[H, W]`` camera z, 0 outside the object) or ``coord_file_path`` (``[H, W, 3]``
    world points), both ``.npy``. The lens is ``camera_angle_x`` in radians, or ``fl_x``, ``fl_y``, ``cx``, ``cy`` in
    pixels, of all frames or of each. The object lies around the origin.

    Args:
        folder: holds ``transforms.json``.
        size: pixels per side that the views are brought to.
        composition: of normals and points, see :data:`~diffsplat.data.object_dataset.ViewComposition`.

    Raises:
        FileNotFoundError: there is no description.
        ValueError: it describes other than four square views, or a file is missing or damaged.
    """
    views, cameras = _described(folder / DESCRIPTION, size)
    if composition == "released":
        rgba, normal, depth = _stacked(views)
        full = cameras.resized(rgba.shape[-1], rgba.shape[-2])
        return paper_training_views(rgba, normal, depth, full, size=size)
    rgba, normal, depth = (
        part.movedim(1, -1).numpy() for part in _stacked([shrunk(view, size) for view in views])
    )
    colors = np.stack([to_pixels(image) for image in torch.from_numpy(rgba).movedim(-1, 1)])
    return to_views(Pixels(colors, normal_bytes(normal), depth_steps(depth[..., 0])), cameras, "")


def _described(path: Path, size: int) -> tuple[list[StoredView], Cameras]:
    """The four views of a description and their cameras, the first of them :data:`DEFAULT_RADIUS` from the origin."""
    description = read_json(path, "expected a description of four views")
    frames = description.get("frames")
    if not isinstance(frames, list) or len(frames) != 4:
        raise InvalidInputError(f"{str(path)!r} does not list four frames, expected four")
    failure = f"{str(path)!r} does not describe cameras"
    try:
        with explained_errors(failure, TypeError, ValueError, RuntimeError, ZeroDivisionError):
            read = [_frame(path.parent, description | frame) for frame in frames]
            poses = torch.stack([view.camera_to_world for view, _ in read])
            scale = DEFAULT_RADIUS / float(torch.linalg.vector_norm(poses[0, :3, 3]))
            poses[:, :3, 3] *= scale
            cameras = Cameras(poses, torch.stack([lens for _, lens in read]), width=size, height=size)
    except KeyError as error:
        raise InvalidInputError(f"{str(path)!r} lacks {error} in a frame") from error
    return [replace(view, depth=view.depth * scale) for view, _ in read], cameras


def _stacked(views: Sequence[StoredView]) -> tuple[Tensor, Tensor, Tensor]:
    """``[V, 4, H, W]`` images, ``[V, 3, H, W]`` normals and ``[V, 1, H, W]`` depths."""
    return (
        torch.stack([view.rgba for view in views]),
        torch.stack([view.normal for view in views]),
        torch.stack([view.depth for view in views]),
    )


def _frame(folder: Path, entries: Mapping[str, Any]) -> tuple[StoredView, Tensor]:
    """A view in the scale of its file, and the ``[4]`` intrinsics of its camera in image sizes."""
    matrix = torch.tensor(entries["transform_matrix"], dtype=torch.float32).reshape(4, 4)
    image = read_image(folder / entries["file_path"])
    normal = y_up(read_image(folder / entries["normal_file_path"])[:3].movedim(0, -1) * 2 - 1).movedim(-1, 0)
    if "depth_file_path" in entries:
        depth = read_array(folder / entries["depth_file_path"], 2)
    else:
        depth = (read_array(folder / entries["coord_file_path"], 3) - matrix[:3, 3]) @ -matrix[:3, 2]
    height, width = image.shape[-2:]
    if height != width or depth.shape != (height, width) or normal.shape[-2:] != (height, width):
        raise InvalidInputError(
            f"{str(folder / entries['file_path'])!r} has {width} x {height} pixels, its normals "
            f"{normal.shape[-1]} x {normal.shape[-2]} and its depth {tuple(depth.shape)[::-1]}, expected one square"
        )
    rgba = image if len(image) == 4 else torch.cat([image, (depth > 0).float()[None]])
    inside = (rgba[3] > 0) & (depth > 0)
    stored = StoredView(
        rgba, torch.where(inside, normal, 0.0), torch.where(inside, depth, 0.0)[None], from_blender(matrix)
    )
    if "camera_angle_x" in entries:
        focal = 0.5 / math.tan(entries["camera_angle_x"] / 2)
        return stored, torch.tensor([focal, focal, 0.5, 0.5])
    lens = [entries["fl_x"], entries.get("fl_y", entries["fl_x"]), entries["cx"], entries["cy"]]
    return stored, torch.tensor(lens) / width
