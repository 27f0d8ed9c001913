"""The mesh renderer against closed forms: spheres, cubes, planes, known paints and lights."""

import math
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from PIL import Image

from diffsplat.core import DEFAULT_FOCAL
from diffsplat.render.meshes.mesh_files import load_mesh
from diffsplat.render.meshes.mesh_renderer import MeshRenderer
from diffsplat.render.meshes.triangle_mesh import Texture, TriangleMesh
from diffsplat.render.meshes.view_sets import FREE_VIEW, ViewSet, view_set

SIZE = 64


def one_view(azimuth=0.0, elevation=0.0):
    return ViewSet((azimuth,), (elevation,), (FREE_VIEW,)).cameras()


def render(mesh, azimuth=0.0, elevation=0.0, size=SIZE, supersampling=2):
    (samples,) = MeshRenderer(mesh, size=size, supersampling=supersampling).render(
        one_view(azimuth, elevation)
    )
    return samples


def triangles(corners, *, normals=None, uv=None, colors=None, textures=()):
    corners = np.asarray(corners, dtype=np.float32)
    count = len(corners)
    if normals is None:
        flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = np.repeat((flat / np.linalg.norm(flat, axis=1, keepdims=True))[:, None], 3, axis=1)
    colors = np.ones((count, 3, 4)) if colors is None else np.broadcast_to(colors, (count, 3, 4))
    return TriangleMesh(
        corners,
        np.asarray(normals, dtype=np.float32),
        np.zeros((count, 3, 2), dtype=np.float32) if uv is None else np.asarray(uv, dtype=np.float32),
        np.ascontiguousarray(colors, dtype=np.float32),
        np.full(count, 0 if textures else -1, dtype=np.int32),
        tuple(textures),
    )


def sphere(radius=0.46, smooth=True):
    ball = trimesh.creation.icosphere(subdivisions=5, radius=radius)
    corners = ball.vertices[ball.faces]
    return triangles(corners, normals=corners / radius if smooth else None)


def cube(half=0.25, **paint):
    box = trimesh.creation.box(extents=(2 * half,) * 3)
    return triangles(box.vertices[box.faces], **paint)


def quad(z, half=0.3, **paint):
    a, b, c, d = (-half, -half, z), (half, -half, z), (half, half, z), (-half, half, z)
    return triangles([[a, b, c], [a, c, d]], **paint)


def joined(*meshes):
    names = ("corners", "normals", "uv", "colors", "texture")
    return TriangleMesh(*(np.concatenate([getattr(m, n) for m in meshes]) for n in names), meshes[0].textures)


def pixel_rays(size):
    """Directions with z = 1 through the pixel centres, camera axes, ``[H, W, 3]``."""
    axis = ((np.arange(size) + 0.5) / size - 0.5) / DEFAULT_FOCAL
    x, y = np.meshgrid(axis, axis)
    return np.stack([x, y, np.ones_like(x)], axis=-1)


@pytest.mark.parametrize(("azimuth", "elevation"), [(0, 0), (123, 35), (0, 90), (45, -90)])
def test_a_sphere_has_the_depth_and_normals_of_the_closed_form(azimuth, elevation):
    radius = 0.46
    samples = render(sphere(radius), azimuth, elevation)
    rays = pixel_rays(SIZE)
    direction = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    along = 1.4 * direction[..., 2]
    inside = along**2 - (1.4**2 - radius**2)
    hit = inside > 0.03
    depth = (along - np.sqrt(np.maximum(inside, 0))) * direction[..., 2]
    assert hit.sum() > 1000
    np.testing.assert_allclose(samples.depth[hit], depth[hit], atol=2.5e-3)
    pose = one_view(azimuth, elevation).camera_to_world[0].double().numpy()
    points = (rays * depth[..., None]) @ pose[:3, :3].T + pose[:3, 3]
    np.testing.assert_allclose(samples.normal[hit], points[hit] / radius, atol=0.02)


def test_a_sphere_covers_the_area_of_its_silhouette_and_is_not_cut():
    samples = render(sphere(), size=128, supersampling=3)
    radius = DEFAULT_FOCAL * 0.46 / math.sqrt(1.4**2 - 0.46**2)
    coverage = samples.image()[..., 3].astype(float).sum() / 255 / 128**2
    assert coverage == pytest.approx(math.pi * radius**2, rel=2e-3)
    assert 2 * radius == pytest.approx(0.966, abs=1e-3)
    edge = samples.image()[..., 3]
    assert edge[0].max() == edge[-1].max() == edge[:, 0].max() == edge[:, -1].max() == 0


def test_a_cube_seen_from_the_front_is_a_square_at_one_depth():
    half = 0.25
    samples = render(cube(half), size=128)
    hit = samples.depth > 0
    side = 2 * half * DEFAULT_FOCAL / (1.4 - half) * 128
    assert hit.sum() == pytest.approx(side**2, rel=0.05)
    np.testing.assert_allclose(samples.depth[hit], 1.4 - half, atol=1e-5)
    np.testing.assert_allclose(samples.normal[hit], [[0, 0, 1]] * hit.sum(), atol=1e-6)


def test_surfaces_have_two_sides():
    outside = cube()
    inside_out = triangles(outside.corners[:, ::-1])
    one, other = render(outside, 30, 20), render(inside_out, 30, 20)
    np.testing.assert_array_equal(one.image(), other.image())
    np.testing.assert_allclose(one.normal, other.normal, atol=1e-6)


def test_the_light_is_fixed_to_the_world_and_has_its_written_strength():
    """The top of a cube: ambient 0.63 and sky 0.06, key 0.40 and fill 0.17 by their directions."""
    key = 0.70 / math.sqrt(0.50**2 + 0.70**2 + 0.51**2)
    fill = 0.28 / math.sqrt(0.72**2 + 0.28**2 + 0.63**2)
    expected = 0.63 + 0.06 + 0.40 * key + 0.17 * fill
    grey = np.array([0.5, 0.5, 0.5, 1.0])
    for azimuth in (0, 77, 181):
        samples = render(cube(colors=grey), azimuth, 40)
        top = samples.normal[..., 1] > 0.999
        assert top.sum() > 100
        solid = samples.image()[top & (samples.image()[..., 3] == 255)]
        assert np.median(solid) == pytest.approx(255 * 0.5 * expected, abs=0.6)


def test_a_texture_lies_the_right_way_up_and_keeps_its_colours():
    colors = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], dtype=np.uint8)
    pixels = np.concatenate(
        [np.kron(colors, np.ones((8, 8, 1), np.uint8)), np.full((16, 16, 1), 255, np.uint8)], -1
    )
    uv = [[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]]
    picture = render(quad(0.0, uv=uv, textures=[Texture(pixels)])).unlit_image()
    reach = int(0.15 * DEFAULT_FOCAL / 1.4 * SIZE)
    centre = SIZE // 2
    for down, right, expected in (
        (-1, -1, colors[0, 0]),
        (-1, 1, colors[0, 1]),
        (1, -1, colors[1, 0]),
        (1, 1, colors[1, 1]),
    ):
        got = picture[centre + down * reach, centre + right * reach, :3]
        np.testing.assert_array_equal(got, expected)


def test_a_fine_texture_seen_small_becomes_its_mean():
    stripes = np.zeros((256, 256, 4), dtype=np.uint8)
    stripes[:, ::2, :3] = 200
    stripes[..., 3] = 255
    uv = [[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]]
    picture = render(quad(0.0, half=0.1, uv=uv, textures=[Texture(stripes)])).unlit_image()
    inner = picture[SIZE // 2 - 3 : SIZE // 2 + 3, SIZE // 2 - 3 : SIZE // 2 + 3, :3]
    np.testing.assert_allclose(inner, 100, atol=6)


def test_colours_of_corners_are_mixed_by_perspective():
    """A tilted quad, dark near and bright far: the middle of the picture sees the middle of the quad's plane."""
    near, far = 0.4, -0.4
    corners = [
        [(-0.3, -0.3, near), (0.3, -0.3, near), (0.3, 0.3, far)],
        [(-0.3, -0.3, near), (0.3, 0.3, far), (-0.3, 0.3, far)],
    ]
    dark, bright = [0, 0, 0, 1], [1, 1, 1, 1]
    mesh = triangles(
        corners, colors=np.array([[dark, dark, bright], [dark, bright, bright]], dtype=np.float32)
    )
    picture = render(mesh, size=65, supersampling=1).unlit_image()
    for row in (24, 32, 38):
        slope = -((row + 0.5) / 65 - 0.5) / DEFAULT_FOCAL
        # y = slope * (1.4 - z) meets y = -0.75 z (the plane of the quad).
        z = -slope * 1.4 / (0.75 - slope)
        expected = 255 * (near - z) / (near - far)
        assert picture[row, 32, 0] == pytest.approx(expected, abs=1.5)


def test_layers_of_glass_are_blended_front_to_back():
    red, green, blue = [1, 0, 0, 0.5], [0, 1, 0, 0.25], [0, 0, 1, 1]
    planes = [quad(0.2, colors=red), quad(0.0, colors=green), quad(-0.2, colors=blue)]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        samples = render(joined(*(planes[i] for i in order)))
        assert samples.unlit_image()[SIZE // 2, SIZE // 2].tolist() == pytest.approx(
            [255 * 0.5, 255 * 0.5 * 0.25, 255 * 0.5 * 0.75, 255], abs=1
        )
        assert samples.depth[SIZE // 2, SIZE // 2] == pytest.approx(1.2, abs=1e-5)


def test_holes_do_not_hide_what_lies_far_behind_them():
    """Twelve surfaces of which the texture leaves nothing, and a green one that is cut out behind them."""
    clear = Texture(np.zeros((1, 1, 4), dtype=np.uint8), cutoff=0.5)
    leaf = Texture(np.array([[[0, 255, 0, 140]]], dtype=np.uint8), cutoff=0.5)
    cards = joined(*(quad(0.3 - 0.02 * i, textures=[clear]) for i in range(12)))
    mesh = joined(cards, quad(-0.2, textures=[leaf]))
    texture = np.where(np.arange(mesh.face_count) < cards.face_count, 0, 1).astype(np.int32)
    samples = render(replace(mesh, texture=texture, textures=(clear, leaf)))
    assert samples.unlit_image()[SIZE // 2, SIZE // 2].tolist() == [0, 255, 0, 255]
    assert samples.depth[SIZE // 2, SIZE // 2] == pytest.approx(1.6, abs=1e-5)


def test_a_single_pane_keeps_its_straight_colour_and_opacity():
    picture = render(quad(0.0, colors=[0.2, 0.6, 1.0, 0.3])).unlit_image()
    assert picture[SIZE // 2, SIZE // 2].tolist() == pytest.approx([51, 153, 255, 76.5], abs=1)


def test_a_camera_inside_the_object_is_refused():
    with pytest.raises(ValueError, match="behind a camera"):
        render(cube(half=2.0))


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply", "stl", "off"])
def test_every_format_gives_the_same_geometry(tmp_path, suffix):
    shape = trimesh.creation.cylinder(radius=1.5, height=4.0, sections=24)
    shape.export(tmp_path / f"shape.{suffix}")
    mesh = load_mesh(tmp_path / f"shape.{suffix}")
    low, high = mesh.bounds()
    np.testing.assert_allclose(low, shape.bounds[0], atol=1e-4)
    np.testing.assert_allclose(high, shape.bounds[1], atol=1e-4)
    fitted = mesh.normalized()
    assert np.linalg.norm(fitted.corners.reshape(-1, 3), axis=1).max() == pytest.approx(0.46, abs=1e-5)
    low, high = fitted.bounds()
    np.testing.assert_allclose(low, -high, atol=1e-6)


def test_materials_of_obj_files(tmp_path):
    (tmp_path / "panes.mtl").write_text(
        "newmtl glass\nKd 0.4 0.2 0.8\nd 0.25\nnewmtl wood\nKd 0.1 0.1 0.1\nmap_Kd wood.png\n"
    )
    Image.new("RGB", (4, 4), (180, 120, 60)).save(tmp_path / "wood.png")
    (tmp_path / "panes.obj").write_text(
        "mtllib panes.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nvt 0 0\nvt 1 0\nvt 0 1\n"
        "usemtl glass\nf 1/1 2/2 3/3\nusemtl wood\nf 1/1 2/2 4/3\n"
    )
    mesh = load_mesh(tmp_path / "panes.obj")
    glass, wood = (mesh.texture < 0), (mesh.texture >= 0)
    assert glass.sum() == wood.sum() == 1
    np.testing.assert_allclose(mesh.colors[glass][0, 0], [0.5, 0.25, 1.0, 0.25], atol=0.006)
    np.testing.assert_allclose(mesh.colors[wood][0, 0], [1, 1, 1, 1])
    assert mesh.textures[0].pixels[0, 0].tolist() == [180, 120, 60, 255]


def test_gltf_factors_are_linear_light(tmp_path):
    """Linear 0.2140 is sRGB 0.5 (IEC 61966-2-1)."""
    box = trimesh.creation.box()
    linear = [55, 55, 55, 255]
    box.visual = trimesh.visual.TextureVisuals(
        material=trimesh.visual.material.PBRMaterial(baseColorFactor=linear)
    )
    box.export(tmp_path / "box.glb")
    mesh = load_mesh(tmp_path / "box.glb")
    np.testing.assert_allclose(mesh.colors[..., :3], 0.5, atol=0.005)
    np.testing.assert_allclose(mesh.colors[..., 3], 1.0)


def test_a_mirroring_transform_keeps_normals_outside():
    mirrored = cube().transformed(np.diag([-1.0, 1.0, 1.0, 1.0]))
    outward = (mirrored.normals * mirrored.corners).sum(-1)
    assert (outward > 0).all()


@pytest.mark.parametrize(
    "content", [b"", b"solid nothing\nendsolid", b"\xff\xd8\xff\xe0 a jpeg", b"glTF\x02\0\0\0"]
)
@pytest.mark.parametrize("suffix", ["glb", "obj", "ply", "stl", "off"])
def test_broken_files_are_one_value_error(tmp_path, suffix, content):
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="broken"):
        load_mesh(path)


def test_view_sets():
    mini = view_set("mini", 7)
    assert mini.azimuths[:4] == (0.0, 90.0, 180.0, 270.0)
    assert mini.elevations[:4] == (10.0,) * 4
    assert len(mini.azimuths) == 24
    wide = view_set("gobjaverse", 7)
    assert len(wide.azimuths) == 38
    assert wide.elevations[-2:] == (90.0, -90.0)
    assert 5 <= wide.elevations[0] <= 30
    assert -5 <= wide.elevations[24] <= 5
    for views in (mini, wide, view_set("orbits", 7), view_set("variant", 7)):
        for ring in range(max(views.ring) + 1):
            members = [i for i, number in enumerate(views.ring) if number == ring]
            assert len({views.elevations[i] for i in members}) == 1
            start = views.azimuths[members[0]]
            turns = sorted(round((views.azimuths[i] - start) % 360, 3) for i in members)
            assert turns == [0, 90, 180, 270]
    assert view_set("mini", 7) == mini != view_set("mini", 8)
