"""Folders of views, against the box that they were drawn of."""

import json
import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from diffsplat.data.view_folders import read_view_folder
from diffsplat.geometry import elevation_deg
from support.box_views import FIRST_AZIMUTH_DEG, HALF, write_box


def in_box_axes(vectors: torch.Tensor) -> np.ndarray:
    """``[N, 3]`` vectors of the world of the first view, whose camera is at +Z, in Blender's."""
    right, up, ahead = vectors.double().numpy().T
    a = math.radians(FIRST_AZIMUTH_DEG)
    return np.stack(
        [ahead * math.cos(a) - right * math.sin(a), ahead * math.sin(a) + right * math.cos(a), up], axis=1
    )


@pytest.mark.parametrize("geometry", ["depth", "coord"])
@pytest.mark.parametrize("distance", [1.4, 2.1])
def test_points_and_normals_are_those_of_the_box(
    tmp_path: Path, geometry: Literal["depth", "coord"], distance: float
):
    write_box(tmp_path / "box", distance=distance, geometry=geometry)
    views = read_view_folder(tmp_path / "box", size=128)
    assert elevation_deg(views.cameras)[0].tolist() == pytest.approx([20.0] * 4, abs=1e-3)
    assert float(views.cameras.centers[0, 0].norm()) == pytest.approx(1.4, abs=1e-5)
    inside = (views.mask[0, :, 0] > 0.5) & (views.depth[0, :, 0] > 0)
    points = in_box_axes(views.coord[0].movedim(1, -1)[inside] * 2 - 1)
    half = HALF * 1.4 / distance
    # A point is on the face that its normal names.
    normals = in_box_axes(views.normal[0].movedim(1, -1)[inside] * 2 - 1)
    face = np.abs(normals).argmax(axis=1)
    assert np.abs(normals).max(axis=1) == pytest.approx(1, abs=1e-2)
    on_face = np.take_along_axis(points * np.sign(normals), face[:, None], 1)[:, 0]
    assert on_face == pytest.approx(half[face], abs=1e-3)
    assert (np.abs(points) <= half + 2e-3).all()
    assert set(face) == {0, 1, 2}


def test_released_composition_has_points_on_the_legacy_grid(tmp_path: Path):
    write_box(tmp_path / "box", size=256)
    exact = read_view_folder(tmp_path / "box", size=128)
    released = read_view_folder(tmp_path / "box", size=128, composition="released")
    middle = (slice(None), slice(None), slice(None), slice(48, 80), slice(48, 80))
    assert torch.allclose(released.image[middle], exact.image[middle], atol=0.02)
    # On this grid corner pixels are at the border: points differ by at most half a pixel.
    assert 0 < float((released.coord[middle] - exact.coord[middle]).abs().median()) < 1.008 / 128 / 2


def test_smaller_views_and_lenses_in_pixels(tmp_path: Path):
    write_box(tmp_path / "box", size=128)
    path = tmp_path / "box" / "transforms.json"
    content = json.loads(path.read_text())
    whole = read_view_folder(tmp_path / "box", size=64)
    focal = 64 / math.tan(content.pop("camera_angle_x") / 2)
    path.write_text(json.dumps({**content, "fl_x": focal, "cx": 64, "cy": 64}))
    views = read_view_folder(tmp_path / "box", size=64)
    assert torch.allclose(views.cameras.intrinsics, whole.cameras.intrinsics)
    assert views.image.shape[-1] == 64
    assert float(views.mask.mean()) == pytest.approx(
        float(read_view_folder(tmp_path / "box", size=128).mask.mean()), abs=1e-3
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content["frames"].pop(), "expected four"),
        (lambda content: content["frames"][1].pop("normal_file_path"), "lacks 'normal_file_path'"),
        (lambda content: content["frames"][1].pop("depth_file_path"), "lacks 'coord_file_path'"),
        (lambda content: content.pop("camera_angle_x"), "lacks 'fl_x'"),
        (
            lambda content: content["frames"][2].update(transform_matrix=[[1, 2], [3, 4]]),
            "does not describe cameras",
        ),
        (lambda content: content["frames"][2]["transform_matrix"][0].__setitem__(0, 7), "rigid"),
        (lambda content: content["frames"][3].update(file_path="nothing.png"), r"nothing\.png"),
        (lambda content: content["frames"].__setitem__(0, 5), "does not describe cameras"),
    ],
)
def test_wrong_descriptions_are_one_sentence(tmp_path: Path, change, reason: str):
    write_box(tmp_path / "box", size=32)
    path = tmp_path / "box" / "transforms.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=reason):
        read_view_folder(tmp_path / "box", size=32)


def test_other_sizes_and_no_description_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"transforms\.json"):
        read_view_folder(tmp_path, size=32)
    write_box(tmp_path / "box", size=32)
    np.save(tmp_path / "box" / "2.npy", np.ones((16, 16)))
    with pytest.raises(ValueError, match="expected one square"):
        read_view_folder(tmp_path / "box", size=32)
