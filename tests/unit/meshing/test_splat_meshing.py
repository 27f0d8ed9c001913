"""Meshes of splats that lie on shapes of known form, and the files that are written of them."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from diffsplat.cli.main import main
from diffsplat.core import Splats
from diffsplat.errors import InvalidInputError
from diffsplat.io.splat_formats import write_splats
from diffsplat.meshing.mesh_writing import write_mesh
from diffsplat.meshing.splat_meshing import ColoredMesh, MeshOptions, mesh_from_splats
from support.splat_shapes import colored_sphere, disks

pytest.importorskip("skimage")
pytest.importorskip("fast_simplification")
pytest.importorskip("xatlas")
trimesh = pytest.importorskip("trimesh")

SMALL = MeshOptions(faces=4000, texture_size=256, resolution=64, views=32, image_size=192)


def sampled(mesh, count: int = 9000) -> Splats:
    points, faces = trimesh.sample.sample_surface(mesh, count, seed=0)
    return disks(points, mesh.face_normals[faces], mesh.area)


def joined(mesh: ColoredMesh):
    made = trimesh.Trimesh(mesh.positions, mesh.faces, process=False)
    made.merge_vertices(merge_tex=True, merge_norm=True)
    return made


def sphere_distance(points: np.ndarray) -> np.ndarray:
    return np.abs(np.linalg.norm(points, axis=1) - 0.4)


def torus_distance(points: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(np.hypot(points[:, 0], points[:, 1]) - 0.3, points[:, 2]) - 0.12)


def box_distance(points: np.ndarray) -> np.ndarray:
    beyond = np.abs(points) - [0.3, 0.2, 0.15]
    return np.abs(np.linalg.norm(np.maximum(beyond, 0), axis=1) + np.minimum(beyond.max(axis=1), 0))


@pytest.mark.parametrize("shape", ["sphere", "torus", "box"])
def test_surface_lies_on_the_shape_and_is_closed(shape: str) -> None:
    splats, distance, volume, size = {
        "sphere": lambda: (colored_sphere(), sphere_distance, 4 / 3 * np.pi * 0.4**3, 0.8),
        "torus": lambda: (
            sampled(trimesh.creation.torus(0.3, 0.12, major_sections=96, minor_sections=48)),
            torus_distance,
            2 * np.pi**2 * 0.3 * 0.12**2,
            0.84,
        ),
        "box": lambda: (sampled(trimesh.creation.box((0.6, 0.4, 0.3))), box_distance, 0.072, 0.6),
    }[shape]()
    mesh = joined(mesh_from_splats(splats, SMALL))
    points = trimesh.sample.sample_surface(mesh, 5000, seed=0)[0]
    voxel = size / SMALL.resolution
    assert distance(points).mean() < 0.5 * voxel
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(volume, rel=0.05)


def test_hole_below_is_closed_without_hollowing_the_object() -> None:
    """The cameras below look through the hole onto the inner side of the wall."""
    mesh = joined(mesh_from_splats(colored_sphere(keep=0.7), SMALL))
    cap = np.pi * 0.12**2 * (0.4 - 0.04)  # of height 0.12, which is missing
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.4**3 - cap, rel=0.06)


def test_what_is_open_below_ends_where_its_wall_ends() -> None:
    """Cameras look up into it; the Gaussians of its wall reach far around it, but hardly below it."""
    turn, height = (
        part.reshape(-1, 1) for part in np.meshgrid(np.arange(60) * np.pi / 30, np.linspace(-0.2, 0.2, 41))
    )
    wall = Splats(
        torch.tensor(np.hstack([0.3 * np.sin(turn), height, 0.3 * np.cos(turn)]), dtype=torch.float32),
        torch.tensor([0.04, 0.01, 0.002]).expand(len(turn), 3).contiguous(),
        torch.tensor(
            np.hstack([np.cos(turn / 2), 0 * turn, np.sin(turn / 2), 0 * turn]), dtype=torch.float32
        ),
        torch.full((len(turn),), 0.95),
        torch.full((len(turn), 3), 0.5),
    )
    ring, spin = (
        part.reshape(-1, 1) for part in np.meshgrid(np.linspace(0.01, 0.29, 29), np.arange(60) * np.pi / 30)
    )
    points = np.hstack([ring * np.sin(spin), np.full_like(ring, 0.2), ring * np.cos(spin)])
    lid = disks(points, np.tile([0.0, 1.0, 0.0], (len(ring), 1)), np.pi * 0.3**2)
    mesh = joined(mesh_from_splats(Splats.concatenate([wall, lid]), SMALL))
    assert mesh.is_watertight
    assert mesh.bounds[:, 1] == pytest.approx([-0.2, 0.2], abs=0.02)


def test_strays_and_faint_gaussians_change_nothing() -> None:
    clean = colored_sphere()
    stray = clean.take(torch.arange(3))
    moved = Splats(stray.means + 50, stray.scales, stray.quats, stray.opacities, stray.colors)
    mesh = joined(mesh_from_splats(Splats.concatenate([clean, moved]), SMALL))
    assert mesh.extents == pytest.approx([0.8, 0.8, 0.8], abs=0.03)


def test_size_and_place_do_not_matter() -> None:
    small = colored_sphere()
    large = Splats(small.means * 250 + 1000, small.scales * 250, small.quats, small.opacities, small.colors)
    mesh = joined(mesh_from_splats(large, SMALL))
    assert mesh.bounds.mean(axis=0) == pytest.approx([1000] * 3, abs=2)
    assert mesh.extents == pytest.approx([200] * 3, abs=6)


def test_texture_and_vertices_have_the_colors_of_the_splats(tmp_path: Path) -> None:
    textured = mesh_from_splats(colored_sphere(), SMALL)
    write_mesh(textured, tmp_path / "ball.glb")
    scene = trimesh.load_scene(tmp_path / "ball.glb")
    (read,) = scene.geometry.values()
    material = read.visual.material
    assert (material.metallicFactor, material.roughnessFactor) == (0.0, 1.0)
    for colors in (read.visual.to_color().vertex_colors[:, :3],):
        points = np.asarray(read.vertices)
        assert colors[points[:, 0] > 0.1].mean(axis=0) == pytest.approx([255, 0, 0], abs=6)
        assert colors[points[:, 0] < -0.1].mean(axis=0) == pytest.approx([0, 0, 255], abs=6)
    colored = mesh_from_splats(colored_sphere(), replace_colors(SMALL))
    assert colored.texture is None
    assert colored.colors is not None
    assert colored.colors[colored.positions[:, 0] > 0.1].mean(axis=0) == pytest.approx([255, 0, 0], abs=6)


def replace_colors(options: MeshOptions) -> MeshOptions:
    return MeshOptions(
        options.faces,
        options.texture_size,
        True,
        "base",
        options.resolution,
        options.views,
        options.image_size,
    )


def test_origin_at_the_base() -> None:
    mesh = mesh_from_splats(colored_sphere(), replace_colors(SMALL))
    assert mesh.positions[:, 1].min() == pytest.approx(0, abs=1e-6)
    assert mesh.positions[:, 1].max() == pytest.approx(0.8, abs=0.03)


def test_scene_without_bounds_is_refused() -> None:
    random = np.random.default_rng(0)
    normals = random.normal(size=(4000, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    distances = np.exp(random.uniform(-2, 4, size=(4000, 1)))
    with pytest.raises(InvalidInputError, match="without bounds"):
        mesh_from_splats(disks(normals * distances, normals, 1.0), SMALL)


@pytest.mark.parametrize("name", ["ball.glb", "ball.gltf", "ball.obj", "ball.stl", "ball.ply"])
def test_command_writes_every_format(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "source.ply", tmp_path / name
    write_splats(colored_sphere(3000), source)
    arguments = ["mesh", str(source), "-o", str(target), "--faces", "800", "--resolution", "32"]
    assert main([*arguments, "--texture-size", "128"]) == 0
    written = capsys.readouterr().out.split()
    assert written[0] == str(target)
    assert all(Path(path).is_file() for path in written)
    read = trimesh.load_mesh(target)
    assert len(read.faces) <= 800
    assert read.extents == pytest.approx([0.8] * 3, abs=0.08)
    read.merge_vertices(merge_tex=True, merge_norm=True)
    assert read.is_watertight
    if name.endswith((".glb", ".gltf", ".obj")):
        assert read.visual.kind == "texture"
    assert main([*arguments, "--texture-size", "128"]) == 2  # the file is there


def test_command_reads_an_unpacked_sog_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_splats(colored_sphere(3000), tmp_path / "ball.sog")
    with zipfile.ZipFile("ball.sog") as archive:
        archive.extractall("ball")
    assert main(["mesh", "ball/meta.json", "--faces", "800", "--resolution", "32", "--vertex-colors"]) == 0
    assert trimesh.load_mesh("ball.mesh.glb").extents == pytest.approx([0.8] * 3, abs=0.08)


def test_bad_options_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source.ply"
    write_splats(colored_sphere(3000), source)
    for arguments, reason in (
        (["-o", str(tmp_path / "a.fbx")], ".fbx"),
        (["-o", str(tmp_path / "a.glb"), "--faces", "3"], "faces"),
        (["-o", str(source)], "file that is read"),
    ):
        assert main(["mesh", str(source), *arguments]) == 2
        assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]
