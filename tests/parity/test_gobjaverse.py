"""G-Objaverse: one object in the public layout, and the training sample that the original made of it.

The original cuts normals and depth to 16-bit steps. The reader does the same, so what is left is float32
rounding: about 1e-7. Without those steps normals and points would be 1.5e-5 and 2e-5 off.
"""

import json
import tarfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffsplat.core import Views
from diffsplat.data.gobjaverse.gobjaverse_files import StoredObject, StoredView
from diffsplat.data.gobjaverse.gobjaverse_views import RINGS, stored_cameras
from support.gobjaverse_samples import training_depth_maps, training_views
from support.recordings import Recordings, relative_error

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def expected(recordings: Recordings) -> dict[str, Tensor]:
    return recordings.tensors("gobjaverse_expected")


@pytest.fixture(scope="module")
def folder(recordings: Recordings) -> Path:
    return recordings.path("gobjaverse_raw")


@pytest.fixture(scope="module")
def stored(folder: Path, expected: dict[str, Tensor]) -> list[StoredView]:
    stored_object = StoredObject(folder)
    return [stored_object.read(number) for number in expected["view_indices"].tolist()]


@pytest.fixture(scope="module")
def views(stored: list[StoredView], expected: dict[str, Tensor]) -> Views:
    return training_views(stored, size=expected["image"].shape[-1])


@pytest.mark.parametrize("name", ["image", "mask", "normal", "coord"])
def test_pictures(views: Views, expected: dict[str, Tensor], name: str):
    computed = getattr(views, name)[0]
    assert relative_error(computed, expected[name]) < TOLERANCE
    torch.testing.assert_close(computed, expected[name], rtol=0, atol=TOLERANCE)


def test_depth_control_maps(stored: list[StoredView], expected: dict[str, Tensor]):
    maps = training_depth_maps(stored, size=expected["depth"].shape[-1])
    torch.testing.assert_close(maps, expected["depth"], rtol=0, atol=TOLERANCE)


def test_cameras(views: Views, expected: dict[str, Tensor]):
    torch.testing.assert_close(views.cameras.camera_to_world[0], expected["C2W"], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(views.cameras.intrinsics[0], expected["fxfycxcy"], rtol=0, atol=TOLERANCE)


def test_elevation_azimuth_and_radius(views: Views, expected: dict[str, Tensor]):
    elevation, azimuth, radius = expected["cam_pose"].unbind(-1)
    centers = views.cameras.centers[0]
    # The original counts elevation downwards. Its sine, because near the poles the angle itself is ill-conditioned.
    torch.testing.assert_close(centers[:, 1], -elevation.sin() * radius, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(centers.norm(dim=-1), radius, rtol=TOLERANCE, atol=0)
    around = torch.stack([azimuth.sin(), azimuth.cos()], dim=-1) * (elevation.cos() * radius)[:, None]
    torch.testing.assert_close(centers[:, [0, 2]], around, rtol=0, atol=TOLERANCE)


def test_the_first_four_views_are_even(views: Views, expected: dict[str, Tensor]):
    chosen = expected["view_indices"].tolist()
    ring = next(ring for ring in RINGS if chosen[0] in ring)
    first = ring.index(chosen[0])
    assert tuple(chosen[:4]) == ring[first:] + ring[:first]
    turns = expected["cam_pose"][:4, 1] - expected["cam_pose"][0, 1]
    around = torch.stack([turns.sin(), turns.cos()], dim=-1)
    quarters = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]])
    torch.testing.assert_close(around, quarters, rtol=0, atol=1e-3)


def test_depth_is_that_of_the_recorded_points(views: Views, expected: dict[str, Tensor]):
    """Camera z in world units: the recorded points, seen from the recorded cameras, where no border is near.

    The mean of depths over a pixel is the depth of the mean point, because depth is linear in the point.
    """
    inside = expected["mask"][:, 0] == 1
    points = torch.einsum(
        "vji,vjhw->vihw",
        expected["C2W"][:, :3, :3],
        expected["coord"] * 2 - 1 - expected["C2W"][:, :3, 3, None, None],
    )
    depth = views.depth[0, :, 0]
    torch.testing.assert_close(depth[inside], points[:, 2][inside], rtol=0, atol=TOLERANCE)
    assert bool((depth[expected["mask"][:, 0] == 0] == 0).all())


def test_an_archive_reads_as_the_folder_does(folder: Path, stored: list[StoredView], tmp_path: Path):
    archive = tmp_path / "10010.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, arcname="10010")
    opened = StoredObject(archive)
    assert opened.views == StoredObject(folder).views
    for number in opened.views[:2]:
        from_folder, from_archive = StoredObject(folder).read(number), opened.read(number)
        for name in ("rgba", "normal", "depth", "camera_to_world"):
            assert torch.equal(getattr(from_folder, name), getattr(from_archive, name))


def test_poses_of_the_files(folder: Path, stored: list[StoredView], expected: dict[str, Tensor]):
    """Distances, heights and angles between views do not depend on the frame: straight from the files."""
    files = [
        json.loads((folder / "campos_512_v4" / f"{n:05d}" / f"{n:05d}.json").read_text())
        for n in expected["view_indices"].tolist()
    ]
    origins = torch.tensor([file["origin"] for file in files])
    cameras = stored_cameras(stored)
    torch.testing.assert_close(cameras.centers[:, 1], origins[:, 2], rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.cdist(cameras.centers, cameras.centers), torch.cdist(origins, origins))
