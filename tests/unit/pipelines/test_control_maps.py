"""Control images of a sphere, as splats and as a mesh, against the closed form."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.core import Splats
from diffsplat.geometry import orbit_cameras
from diffsplat.io.splat_formats import write_splats
from diffsplat.pipelines.control_maps import (
    ControlKind,
    canny_map,
    control_maps_from,
)

RADIUS, DISTANCE, SIZE = 0.46, 1.4, 64


def sphere_of_splats(center: tuple[float, float, float] = (0.0, 0.0, 0.0), count: int = 12_000) -> Splats:
    """Flat discs on a Fibonacci lattice, each with its shortest axis along the radius."""
    index = torch.arange(count) + 0.5
    polar, azimuth = torch.acos(1 - 2 * index / count), math.pi * (1 + 5**0.5) * index
    outward = torch.stack([polar.sin() * azimuth.cos(), polar.cos(), polar.sin() * azimuth.sin()], dim=1)
    # The rotation that takes +X to the radius: half-way quaternions.
    quats = torch.stack([1 + outward[:, 0], torch.zeros(count), -outward[:, 2], outward[:, 1]], dim=1)
    return Splats(
        means=outward * RADIUS + torch.tensor(center),
        scales=torch.tensor([1e-4, 0.014, 0.014]).expand(count, 3).contiguous(),
        quats=functional.normalize(quats, dim=1),
        opacities=torch.full((count,), 0.95),
        colors=torch.tensor([0.9, 0.4, 0.1]).expand(count, 3).contiguous(),
    )


def icosphere(path: Path, subdivisions: int = 5) -> Path:
    trimesh = pytest.importorskip("trimesh")
    trimesh.creation.icosphere(subdivisions=subdivisions, radius=3.0).apply_translation([5, 6, 7]).export(
        path
    )
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sphere")
    write_splats(sphere_of_splats(), folder / "splats.ply")
    return {
        "splats": folder / "splats.ply",
        "glb": icosphere(folder / "mesh.glb"),
        "mesh ply": icosphere(folder / "mesh.ply"),
    }


def sphere(elevation_deg: float) -> tuple[Tensor, Tensor, Tensor]:
    """Depth ``[H, W]``, unit normals ``[3, H, W]``, and where the sphere is seen, by intersecting rays."""
    elevation = math.radians(elevation_deg)
    eye = torch.tensor([0, math.sin(elevation), math.cos(elevation)], dtype=torch.float64) * DISTANCE
    right = torch.tensor([1.0, 0, 0], dtype=torch.float64)
    forward = -eye / DISTANCE
    down = torch.linalg.cross(forward, right)
    place = ((torch.arange(SIZE, dtype=torch.float64) + 0.5) / SIZE - 0.5) / (1422.222 / 1024)
    y, x = torch.meshgrid(place, place, indexing="ij")
    ray = forward[:, None, None] + right[:, None, None] * x + down[:, None, None] * y
    squared = (ray * ray).sum(dim=0)
    half = (ray * eye[:, None, None]).sum(dim=0) / squared
    inside = half**2 - (DISTANCE**2 - RADIUS**2) / squared
    depth = -half - inside.clamp(min=0).sqrt()
    normal = (eye[:, None, None] + ray * depth) / RADIUS
    return depth, normal, inside > 0


def away_from_the_rim(seen: Tensor, pixels: int) -> Tensor:
    grown = functional.max_pool2d((~seen).float()[None, None], 2 * pixels + 1, 1, pixels)[0, 0]
    return grown == 0


SOURCES = ["splats", "glb", "mesh ply"]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("elevation", [10.0, -35.0])
def test_depth_of_a_sphere(files: dict[str, Path], source: str, elevation: float):
    control = control_maps_from(files[source], "depth", elevation_deg=elevation, size=SIZE)
    assert control.shape == (3, SIZE, SIZE)
    assert torch.equal(control[0], control[1])
    assert torch.equal(control[0], control[2])
    depth, _, seen = sphere(elevation)
    # The farthest visible points form the rim, where rays are tangents.
    rim = (DISTANCE**2 - RADIUS**2) / DISTANCE
    inner = away_from_the_rim(seen, 3)
    expected = 1 - depth / rim
    assert float((control[0] - expected)[inner].abs().max()) < 0.02
    outer = away_from_the_rim(~seen, 2)
    assert float(control[0][outer].min()) > 0.999
    assert control[0, SIZE // 2, SIZE // 2] == pytest.approx(1 - (DISTANCE - RADIUS) / rim, abs=0.02)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("elevation", [0.0, 40.0])
def test_normals_of_a_sphere(files: dict[str, Path], source: str, elevation: float):
    control = control_maps_from(files[source], "normal", elevation_deg=elevation, size=SIZE)
    _, normal, seen = sphere(elevation)
    inner = away_from_the_rim(seen, 4)
    error = (control * 2 - 1 - normal)[:, inner].norm(dim=0)
    # Discs whose centres lie nearer to the camera are blended first: their tilt is about their size over the radius.
    assert float(error.max()) < (0.06 if source == "splats" else 0.02)
    assert float(control[:, away_from_the_rim(~seen, 2)].min()) > 0.999


def test_edges_of_a_sphere_lie_on_its_rim(files: dict[str, Path]):
    control = control_maps_from(files["splats"], "canny", size=SIZE)
    _, _, seen = sphere(10.0)
    edges = control[0] == 0
    assert set(control.unique().tolist()) == {0.0, 1.0}
    near_the_rim = ~away_from_the_rim(seen, 2) & ~away_from_the_rim(~seen, 2)
    assert bool(near_the_rim[edges].all())
    # A closed line round the disc, as long as its circumference within what steps of pixels cost.
    radius = math.sqrt(int(seen.sum()) / math.pi)
    assert 0.8 * 2 * math.pi * radius < int(edges.sum()) < 1.2 * 2 * math.pi * radius


def test_a_lone_splat_far_behind_does_not_set_the_scale(tmp_path: Path):
    sphere_ = sphere_of_splats()
    faint = Splats(
        means=torch.tensor([[0.0, 0.0, -20.0]]),
        scales=torch.full((1, 3), 5.0),
        quats=torch.tensor([[1.0, 0, 0, 0]]),
        opacities=torch.tensor([0.02]),
        colors=torch.zeros(1, 3),
    )
    both = Splats(**{name: torch.cat([getattr(sphere_, name), getattr(faint, name)]) for name in vars(faint)})
    write_splats(sphere_, tmp_path / "one.ply")
    write_splats(both, tmp_path / "both.ply")
    one, two = (control_maps_from(tmp_path / f"{name}.ply", "depth", size=SIZE) for name in ("one", "both"))
    # Divided by the faint splat's depth, everything else would be nearly white.
    torch.testing.assert_close(one, two, rtol=0, atol=0.03)


def test_edges_of_a_picture_are_black_on_white():
    picture = torch.ones(3, 20, 30)
    picture[:, :, 15:] = 0
    edges = canny_map(picture)
    expected = torch.ones(3, 20, 30)
    expected[:, :, 14] = 0
    assert torch.equal(edges, expected)
    assert canny_map(picture.double()).dtype == torch.float64


def test_what_is_no_object_is_refused(tmp_path: Path, files: dict[str, Path]):
    def refused(message: str, path: Path, kind: ControlKind = "depth", **options: float) -> None:
        with pytest.raises(ValueError, match=message):
            control_maps_from(path, kind, **options)  # pyright: ignore[reportArgumentType]

    refused("there is no such file", tmp_path / "none.ply")
    (tmp_path / "a.ply").write_text("hello")
    refused("not a readable .ply file", tmp_path / "a.ply")
    (tmp_path / "a.txt").write_text("hello")
    refused("has the suffix '.txt', expected splats or a mesh", tmp_path / "a.txt")
    (tmp_path / "a.glb").write_text("hello")
    refused("is broken, or no .glb file", tmp_path / "a.glb")
    refused("the control is 'edges', expected one of depth, normal, canny", files["splats"], "edges")  # pyright: ignore[reportArgumentType]
    refused("the elevation is 91", files["splats"], elevation_deg=91)
    refused("the elevation is nan", files["splats"], elevation_deg=math.nan)
    refused("the size is 0", files["splats"], size=0)
    write_splats(sphere_of_splats((50.0, 0, 0), 10), tmp_path / "far.ply")
    refused("nothing of .*far.ply' is visible", tmp_path / "far.ply")


def test_the_oracle_has_the_cameras_of_generation():
    camera = orbit_cameras([0.0], 25.0, width=SIZE, height=SIZE)
    depth, normal, seen = sphere(25.0)
    points = camera.to(torch.float64).unproject(depth[None, None])[0]
    torch.testing.assert_close(points[:, seen], (normal * RADIUS)[:, seen], rtol=0, atol=1e-6)


def test_what_a_mesh_lost_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd gone.png\n")
    (tmp_path / "a.obj").write_text("mtllib a.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    control_maps_from(tmp_path / "a.obj", "depth", size=32)
    (message,) = caplog.messages
    assert message == f"{tmp_path / 'a.obj'}: its texture 'gone.png' is missing"
