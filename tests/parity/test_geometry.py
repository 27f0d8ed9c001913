"""Geometry against outputs recorded from the original implementation (CPU, float32).

Two recorded tensors are left out here: ``c2w_normalized`` and ``normals_in_view0`` take the whole first pose to
a canonical one and use OpenGL camera axes. That belongs to the control maps of the released pipelines; the
:meth:`Cameras.relative_to_first` of this package only turns the world about its vertical axis.
"""

from pathlib import Path

import pytest
import torch
from recordings import Recordings
from torch import Tensor

from diffsplat.core import Cameras, SplatGrid
from diffsplat.geometry import orbit_cameras, plucker_rays
from diffsplat.io.formats import read_splats, write_splats

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def geometry(recordings: Recordings) -> dict[str, Tensor]:
    return recordings.tensors("geometry")


@pytest.fixture(scope="module")
def grids(recordings: Recordings) -> dict[str, Tensor]:
    return recordings.tensors("splat_grid_io")


def recorded_cameras(geometry: dict[str, Tensor]) -> Cameras:
    return Cameras(geometry["c2w_opencv"], geometry["fxfycxcy"], width=24, height=16)


def test_orbit_poses(geometry: dict[str, Tensor]):
    for index, radius in enumerate(geometry["radii"].tolist()):
        # The original counts elevation downwards.
        cameras = orbit_cameras(
            geometry["azimuths_deg"][index : index + 1],
            -geometry["elevations_deg"][index : index + 1],
            radius=radius,
            width=24,
            height=24,
        )
        torch.testing.assert_close(cameras.camera_to_world[0], geometry["c2w_opencv"][index], **TOLERANCE)


def test_the_default_focal_length(geometry: dict[str, Tensor]):
    cameras = orbit_cameras([0.0], 0.0, width=24, height=24)
    torch.testing.assert_close(cameras.intrinsics[0], geometry["fxfycxcy"][0], **TOLERANCE)


def test_opengl_poses_are_the_same_with_two_columns_negated(geometry: dict[str, Tensor]):
    flip = torch.tensor([1.0, -1.0, -1.0, 1.0])
    torch.testing.assert_close(geometry["c2w_opengl"] * flip, geometry["c2w_opencv"], **TOLERANCE)


def test_pluecker_maps_of_the_legacy_grid(geometry: dict[str, Tensor]):
    rays = plucker_rays(recorded_cameras(geometry), "legacy")
    torch.testing.assert_close(rays[None], geometry["plucker_16x24"], **TOLERANCE)


def test_unprojection_of_the_legacy_grid(geometry: dict[str, Tensor]):
    depth = geometry["depth"]
    depth = depth if depth.ndim == 5 else depth.unsqueeze(2)
    points = recorded_cameras(geometry).unproject(depth[0], "legacy")
    torch.testing.assert_close(points[None], geometry["unprojected"], **TOLERANCE)


def decoded(grids: dict[str, Tensor]):
    cameras = Cameras(grids["c2w_opencv"], grids["fxfycxcy"], width=12, height=12)
    return SplatGrid(grids["grid"]).to_splats(cameras, "legacy")


def test_splat_grid_decoding(grids: dict[str, Tensor]):
    splats = decoded(grids)
    torch.testing.assert_close(splats.means, grids["xyz"], **TOLERANCE)
    torch.testing.assert_close(splats.colors, grids["rgb"], **TOLERANCE)
    torch.testing.assert_close(splats.scales, grids["scale"], **TOLERANCE)
    torch.testing.assert_close(splats.opacities, grids["opacity"].squeeze(-1), **TOLERANCE)
    lengths = grids["rotation"].norm(dim=-1, keepdim=True)
    torch.testing.assert_close(splats.quats, grids["rotation"] / lengths, **TOLERANCE)


CASES = [("splats_object0.ply", 0, 0.0), ("splats_object1_opacity0.3.ply", 1, 0.3)]


@pytest.mark.parametrize(("file", "index", "min_opacity"), CASES)
def test_ply_files_of_the_original_are_read(
    recordings: Recordings, grids: dict[str, Tensor], file: str, index: int, min_opacity: float
):
    splats = read_splats(recordings.path(file))
    chosen = grids["opacity"][index].squeeze(-1) > min_opacity
    for name, recorded in (("means", "xyz"), ("colors", "rgb"), ("scales", "scale")):
        torch.testing.assert_close(
            getattr(splats, name), grids[recorded][index][chosen], rtol=1e-5, atol=1e-6
        )
    torch.testing.assert_close(splats.opacities, grids["opacity"][index][chosen, 0], rtol=1e-5, atol=1e-6)
    rotation = grids["rotation"][index][chosen]
    torch.testing.assert_close(
        splats.quats, rotation / rotation.norm(dim=-1, keepdim=True), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(("file", "index", "min_opacity"), CASES)
def test_the_same_splats_written_have_the_values_of_the_original(
    recordings: Recordings,
    grids: dict[str, Tensor],
    tmp_path: Path,
    file: str,
    index: int,
    min_opacity: float,
):
    splats = decoded(grids)[index]
    write_splats(splats.take(splats.opacities > min_opacity), tmp_path / "a.ply")
    written, recorded = _values(tmp_path / "a.ply"), _values(recordings.path(file))
    # The original stores quaternions of any length; here they are unit.
    recorded[:, 10:] /= recorded[:, 10:].norm(dim=-1, keepdim=True)
    torch.testing.assert_close(written, recorded, rtol=1e-5, atol=1e-5)


def _values(path: Path) -> Tensor:
    """``[N, 14]`` floats that every vertex starts with, in their usual order."""
    header, body = path.read_bytes().split(b"end_header\n", 1)
    lines = header.decode().splitlines()
    names = [line.split()[-1] for line in lines if line.startswith("property")]
    assert names[:14] == [
        *("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
        *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
    ]
    row = sum(4 if " float " in line else 1 for line in lines if line.startswith("property"))
    count = next(int(line.split()[-1]) for line in lines if line.startswith("element vertex"))
    table = torch.frombuffer(bytearray(body), dtype=torch.uint8).view(count, row)[:, :56].contiguous()
    return table.view(torch.float32)
