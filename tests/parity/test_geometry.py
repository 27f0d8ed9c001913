"""Geometry against outputs recorded from the original implementation (CPU, float32), at any size."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffsplat.core import Cameras, SplatGrid
from diffsplat.geometry import orbit_cameras, plucker_rays
from diffsplat.io.splat_formats import read_splats, write_splats
from support.recordings import Recordings

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def geometry(recordings: Recordings) -> dict[str, Tensor]:
    return recordings.tensors("geometry")


@pytest.fixture(scope="module")
def grids(recordings: Recordings) -> dict[str, Tensor]:
    return recordings.tensors("splat_grid_io")


def cameras_for(recorded: dict[str, Tensor], images: Tensor) -> Cameras:
    """The recorded cameras ``[V]`` or ``[B, V]`` as those of ``images [B, V, C, H, W]``."""
    height, width = images.shape[-2:]
    poses = recorded["c2w_opencv"].expand(*images.shape[:2], 4, 4)
    return Cameras(
        poses, recorded["fxfycxcy"].expand(*images.shape[:2], 4), width=int(width), height=int(height)
    )


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
    maps = [name for name in geometry if re.fullmatch(r"plucker_\d+x\d+", name)]
    assert maps
    for name in maps:
        height, width = map(int, name.removeprefix("plucker_").split("x"))
        assert geometry[name].shape[-2:] == (height, width)
        rays = plucker_rays(cameras_for(geometry, geometry[name]), "legacy")
        torch.testing.assert_close(rays, geometry[name], **TOLERANCE)


def test_unprojection_of_the_legacy_grid(geometry: dict[str, Tensor]):
    depth = geometry["depth"]
    depth = depth if depth.ndim == 5 else depth.unsqueeze(2)
    points = cameras_for(geometry, depth).unproject(depth, "legacy")
    torch.testing.assert_close(points, geometry["unprojected"], **TOLERANCE)


def decoded(grids: dict[str, Tensor]):
    return SplatGrid(grids["grid"]).to_splats(cameras_for(grids, grids["grid"]), "legacy")


def test_splat_grid_decoding(grids: dict[str, Tensor]):
    splats = decoded(grids)
    torch.testing.assert_close(splats.means, grids["xyz"], **TOLERANCE)
    torch.testing.assert_close(splats.colors, grids["rgb"], **TOLERANCE)
    torch.testing.assert_close(splats.scales, grids["scale"], **TOLERANCE)
    torch.testing.assert_close(splats.opacities, grids["opacity"].squeeze(-1), **TOLERANCE)
    lengths = grids["rotation"].norm(dim=-1, keepdim=True)
    torch.testing.assert_close(splats.quats, grids["rotation"] / lengths, **TOLERANCE)


def recorded_files(recordings: Recordings, grids: dict[str, Tensor]) -> list[tuple[Path, int, Tensor]]:
    """Each recorded .ply with the object that it holds, and which of its Gaussians (all, or the opaque ones)."""
    files = []
    for path in sorted(recordings.folder.glob("splats_object*.ply")):
        name = re.fullmatch(r"splats_object(\d+)(?:_opacity([\d.]+))?\.ply", path.name)
        assert name is not None, path.name
        index, min_opacity = int(name[1]), float(name[2] or 0)
        files.append((path, index, grids["opacity"][index].squeeze(-1) > min_opacity))
    if not files:
        pytest.skip(f"splats_object*.ply is not in {recordings.folder}")
    return files


def test_ply_files_of_the_original_are_read(recordings: Recordings, grids: dict[str, Tensor]):
    for path, index, chosen in recorded_files(recordings, grids):
        splats = read_splats(path)
        for name, recorded in (("means", "xyz"), ("colors", "rgb"), ("scales", "scale")):
            torch.testing.assert_close(
                getattr(splats, name), grids[recorded][index][chosen], rtol=1e-5, atol=1e-6
            )
        torch.testing.assert_close(splats.opacities, grids["opacity"][index][chosen, 0], rtol=1e-5, atol=1e-6)
        rotation = grids["rotation"][index][chosen]
        torch.testing.assert_close(
            splats.quats, rotation / rotation.norm(dim=-1, keepdim=True), rtol=0, atol=1e-6
        )


def test_the_same_splats_written_have_the_values_of_the_original(
    recordings: Recordings, grids: dict[str, Tensor], tmp_path: Path
):
    for path, index, chosen in recorded_files(recordings, grids):
        write_splats(decoded(grids)[index].take(chosen), tmp_path / path.name)
        written, recorded = _values(tmp_path / path.name), _values(path)
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
