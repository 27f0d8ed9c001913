"""Files of generated objects: meshes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffsplat.core import Splats
from diffsplat.errors import InvalidInputError
from diffsplat.geometry import orbit_cameras
from diffsplat.pipelines.object_writing import write_object
from diffsplat.pipelines.pipeline_output import GeneratedObject

trimesh = pytest.importorskip("trimesh")
for package in ("skimage", "fast_simplification", "xatlas"):
    pytest.importorskip(package)


def generated(opacity: float) -> GeneratedObject:
    """A red ball of round Gaussians."""
    points, count = np.random.default_rng(0).normal(size=(3000, 3)), 3000
    means = torch.tensor(points / np.linalg.norm(points, axis=1, keepdims=True) * 0.4, dtype=torch.float32)
    splats = Splats(
        means,
        torch.full((count, 3), 0.4 * math.sqrt(4 * math.pi / count) / 2),
        torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(count, 4).contiguous(),
        torch.full((count,), opacity),
        torch.tensor([1.0, 0.0, 0.0]).expand(count, 3).contiguous(),
    )
    return GeneratedObject(splats, orbit_cameras([0.0], 20.0, width=64, height=64), 20.0, "a ball", 0)


def test_mesh_of_an_object_is_closed_and_has_its_color(tmp_path: Path) -> None:
    write_object(generated(0.9), tmp_path / "ball.mesh.glb")
    mesh = trimesh.load_mesh(tmp_path / "ball.mesh.glb")
    assert mesh.visual.to_color().vertex_colors[:, :3].mean(axis=0) == pytest.approx([255, 0, 0], abs=4)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight
    assert mesh.extents == pytest.approx([0.8] * 3, abs=0.06)


def test_a_contact_sheet_shows_what_lies_between_the_generated_views(tmp_path: Path) -> None:
    """One Gaussian in front of each camera of the sheet, in a colour of its own."""
    angles = torch.tensor([45.0, 135.0, 225.0, 315.0]).deg2rad()
    means = 0.4 * torch.stack([angles.sin(), torch.zeros(4), angles.cos()], dim=1)
    colors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    level = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(4, 4).contiguous()
    dots = Splats(means, torch.full((4, 3), 0.05), level, torch.full((4,), 0.999), colors)
    cameras = orbit_cameras([0.0, 90.0], 0.0, width=64, height=64)
    write_object(GeneratedObject(dots, cameras, 0.0, "dots", 0), tmp_path / "dots.png")
    sheet = np.asarray(Image.open(tmp_path / "dots.png"))
    assert sheet.shape == (256, 4 * 256, 3)
    for number, color in enumerate(colors.tolist()):
        assert sheet[128, 256 * number + 128] == pytest.approx([255 * value for value in color], abs=8)


def test_fog_has_no_mesh(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="expected a"):
        write_object(generated(0.02), tmp_path / "fog.mesh.glb")
    assert not list(tmp_path.iterdir())
