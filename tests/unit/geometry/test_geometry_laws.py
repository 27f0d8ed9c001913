"""Laws of cameras, rays and rotations, against closed forms written out here."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffsplat.core import DEFAULT_RADIUS, Cameras
from diffsplat.geometry import (
    elevation_deg,
    look_at,
    matrix_to_quaternion,
    normals_to_first_view,
    orbit_cameras,
    plucker_rays,
    quaternion_to_matrix,
    ray_directions,
    ring_cameras,
    rotation_onto,
    turntable_cameras,
)
from diffsplat.images.depth_control_map import depth_control_map

EXACT = {"rtol": 0.0, "atol": 1e-9}
SINGLE = {"rtol": 1e-5, "atol": 1e-5}

laws = settings(max_examples=60, deadline=None)
azimuths = st.floats(-720, 720)
elevations = st.floats(-89, 89)
radii = st.floats(0.3, 20)


def rodrigues(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotation matrices from unit axes and angles: I + sin K + (1 - cos) K^2."""
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    sine, cosine = angle.sin()[..., None, None], angle.cos()[..., None, None]
    return torch.eye(3, dtype=axis.dtype) + sine * cross + (1 - cosine) * cross @ cross


def random_axes(count: int, seed: int = 0) -> Tensor:
    axes = torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return axes / axes.norm(dim=-1, keepdim=True)


def random_cameras(*batch: int, width: int = 7, height: int = 5, seed: int = 0) -> Cameras:
    """Any rotation, any centre, an off-centre principal point; float64."""
    generator = torch.Generator().manual_seed(seed)
    count = math.prod(batch)
    angles = torch.rand(count, dtype=torch.float64, generator=generator) * math.pi
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    poses[:, :3, :3] = rodrigues(random_axes(count, seed), angles)
    poses[:, :3, 3] = torch.randn(count, 3, dtype=torch.float64, generator=generator) * 2
    noise = torch.rand(count, 4, dtype=torch.float64, generator=generator)
    intrinsics = torch.tensor([1.0, 1.2, 0.4, 0.45], dtype=torch.float64) + 0.2 * noise
    return Cameras(poses.view(*batch, 4, 4), intrinsics.view(*batch, 4), width=width, height=height)


# Rotations


def test_quaternions_of_axis_and_angle():
    axes = random_axes(500)
    angles = torch.linspace(0, 2 * math.pi, 500, dtype=torch.float64)
    quats = torch.cat([(angles / 2).cos()[:, None], axes * (angles / 2).sin()[:, None]], -1)
    matrices = rodrigues(axes, angles)
    torch.testing.assert_close(quaternion_to_matrix(quats), matrices, **EXACT)
    torch.testing.assert_close(quaternion_to_matrix(-3 * quats), matrices, **EXACT)
    found = matrix_to_quaternion(matrices)
    assert (found[:, 0] >= 0).all()
    torch.testing.assert_close((found * quats).sum(-1).abs(), torch.ones(500, dtype=torch.float64), **EXACT)


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (-1, 0, 1), (1, 2, 3)])
def test_half_turns_where_the_trace_formula_breaks_down(axis: tuple[int, int, int]):
    unit = torch.tensor(axis, dtype=torch.float64)
    unit = unit / unit.norm()
    half_turn = 2 * unit[:, None] * unit - torch.eye(3, dtype=torch.float64)
    found = matrix_to_quaternion(half_turn)
    assert abs(float(found[0])) < 1e-9
    torch.testing.assert_close((found[1:] @ unit).abs(), torch.ones((), dtype=torch.float64), **EXACT)


@laws
@given(st.tuples(*[st.floats(-1, 1) for _ in range(4)]).filter(lambda q: math.hypot(*q) > 1e-3))
def test_any_quaternion_gives_a_rotation_and_comes_back(values: tuple[float, ...]):
    quat = torch.tensor(values, dtype=torch.float64)
    matrix = quaternion_to_matrix(quat)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64), **EXACT)
    assert float(torch.linalg.det(matrix)) == pytest.approx(1)
    back = matrix_to_quaternion(matrix)
    assert abs(float(back @ quat)) == pytest.approx(float(quat.norm()))


def test_the_matrix_turns_vectors_as_the_quaternion_product_does():
    """q v q* with the Hamilton product written out, for a quaternion of any kind."""
    w, x, y, z = 0.1, -0.7, 0.5, 0.5
    v = (0.3, -2.0, 1.5)
    t = [2 * (y * v[2] - z * v[1]), 2 * (z * v[0] - x * v[2]), 2 * (x * v[1] - y * v[0])]
    expected = [
        v[0] + w * t[0] + y * t[2] - z * t[1],
        v[1] + w * t[1] + z * t[0] - x * t[2],
        v[2] + w * t[2] + x * t[1] - y * t[0],
    ]
    turned = quaternion_to_matrix(torch.tensor([w, x, y, z], dtype=torch.float64)) @ torch.tensor(
        v, dtype=torch.float64
    )
    assert turned.tolist() == pytest.approx(expected)


def test_rotation_onto_is_the_shortest_turn_of_the_z_axis():
    directions = torch.cat([random_axes(200), torch.tensor([[0.0, 0, 1], [0, 0, -1], [1, 0, 0]]).double()])
    quats = rotation_onto(directions)
    torch.testing.assert_close(quaternion_to_matrix(quats)[..., 2], directions, rtol=0, atol=1e-6)
    # The scalar part is the cosine of half the angle between +Z and the direction.
    torch.testing.assert_close(quats[:, 0], ((1 + directions[:, 2]) / 2).clamp(0).sqrt(), rtol=0, atol=1e-6)


# Cameras


def test_world_to_camera_is_the_inverse():
    cameras = random_cameras(3, 4)
    identity = torch.eye(4, dtype=torch.float64).expand(3, 4, 4, 4)
    torch.testing.assert_close(cameras.world_to_camera @ cameras.camera_to_world, identity, **EXACT)
    torch.testing.assert_close(cameras.world_to_camera, torch.linalg.inv(cameras.camera_to_world), **EXACT)


@laws
@given(azimuths, elevations, radii)
def test_an_orbit_camera_stands_where_it_should_and_sees_the_origin_upright(
    azimuth: float, elevation: float, radius: float
):
    cameras = orbit_cameras([azimuth], [elevation], radius=radius, width=8, height=8)
    a, e = math.radians(azimuth), math.radians(elevation)
    center = [radius * math.cos(e) * math.sin(a), radius * math.sin(e), radius * math.cos(e) * math.cos(a)]
    assert cameras.centers[0].tolist() == pytest.approx(center, abs=2e-4 * radius)
    view = cameras.world_to_camera[0]
    # The origin is straight ahead at the distance of the radius; +Y is drawn upwards and nowhere sideways.
    assert view[:3, 3].tolist() == pytest.approx([0, 0, radius], abs=1e-4 * radius)
    assert float(view[0, 1]) == pytest.approx(0, abs=1e-4)
    assert float(view[1, 1]) < 0
    assert float(elevation_deg(cameras)[0]) == pytest.approx(elevation, abs=2e-2)


def test_azimuth_ninety_is_plus_x_and_elevation_is_up():
    cameras = orbit_cameras([0.0, 90.0, 180.0, 0.0], [0.0, 0.0, 0.0, 90.0], radius=2, width=4, height=4)
    expected = torch.tensor([[0.0, 0, 2], [2, 0, 0], [0, 0, -2], [0, 2, 0]])
    torch.testing.assert_close(cameras.centers, expected, **SINGLE)
    # From the front, the right of the image is +X.
    torch.testing.assert_close(cameras.camera_to_world[0, :3, 0], torch.tensor([1.0, 0, 0]), **SINGLE)
    # From above, the upper edge of the image is -Z.
    torch.testing.assert_close(cameras.camera_to_world[3, :3, 1], torch.tensor([0.0, 0, 1]), **SINGLE)


def test_looking_straight_down_and_up_and_at_a_target():
    poses = look_at(torch.tensor([[0.0, 3, 0], [0, -3, 0], [1, 2, 3]]), torch.tensor([0.0, 0, 0]))
    torch.testing.assert_close(poses[0, :3, 2], torch.tensor([0.0, -1, 0]), **SINGLE)
    torch.testing.assert_close(poses[1, :3, 2], torch.tensor([0.0, 1, 0]), **SINGLE)
    torch.testing.assert_close(poses[1, :3, 1], torch.tensor([0.0, 0, -1]), **SINGLE)
    target = torch.tensor([1.0, 2, -5])
    ahead = look_at(torch.tensor([1.0, 2, 3]), target)
    torch.testing.assert_close(ahead[:3, 2], torch.tensor([0.0, 0, -1]), **SINGLE)
    with pytest.raises(ValueError, match="at the target itself"):
        look_at(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="expected a positive distance"):
        orbit_cameras([0.0], 0.0, radius=0, width=4, height=4)


def test_rings_and_turntables():
    ring = ring_cameras(25.0, size=32)
    assert ring.batch_shape == (4,)
    assert elevation_deg(ring).tolist() == pytest.approx([25] * 4, abs=1e-3)
    torch.testing.assert_close(ring.centers.norm(dim=-1), torch.full((4,), DEFAULT_RADIUS), **SINGLE)
    table = turntable_cameras(8, size=16)
    torch.testing.assert_close(table.centers[::2], ring_cameras(size=16).centers, **SINGLE)
    assert turntable_cameras(1, size=16).batch_shape == (1,)
    with pytest.raises(ValueError, match="a turntable of 0 frames"):
        turntable_cameras(0, size=16)


def test_pixels_of_a_wide_image_stay_square():
    cameras = orbit_cameras([0.0], 0.0, width=200, height=100, focal=1.5)
    fx, fy, cx, cy = cameras.pixel_intrinsics[0].tolist()
    assert (fx, fy, cx, cy) == pytest.approx((300, 300, 100, 50))


@laws
@given(azimuths, elevations, radii, azimuths, elevations, radii)
def test_relative_to_first_moves_the_first_view_to_azimuth_zero_and_nothing_else(
    first_azimuth: float,
    first_elevation: float,
    first_radius: float,
    azimuth: float,
    elevation: float,
    radius: float,
):
    parts = [
        orbit_cameras([a], e, radius=r, width=4, height=4).to(torch.float64)
        for a, e, r in ((first_azimuth, first_elevation, first_radius), (azimuth, elevation, radius))
    ]
    poses = torch.cat([part.camera_to_world for part in parts])
    cameras = Cameras(poses, torch.cat([part.intrinsics for part in parts]), width=4, height=4)
    turned = cameras.relative_to_first(1.4)
    scale = 1.4 / first_radius
    # The first camera: azimuth 0, its elevation kept, at the asked radius.
    e = math.radians(first_elevation)
    expected = [0, 1.4 * math.sin(e), 1.4 * math.cos(e)]
    assert turned.centers[0].tolist() == pytest.approx(expected, abs=1e-4)
    # The second: the azimuth between them kept, its elevation kept, its distance scaled alike.
    a, e = math.radians(azimuth - first_azimuth), math.radians(elevation)
    direction = [math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)]
    distance = radius * scale
    assert turned.centers[1].tolist() == pytest.approx([v * distance for v in direction], abs=2e-4 * distance)
    # What one camera sees of the other is the same picture, scaled.
    before = cameras.world_to_camera[0] @ cameras.camera_to_world[1]
    after = turned.world_to_camera[0] @ turned.camera_to_world[1]
    torch.testing.assert_close(after[:3, :3], before[:3, :3], rtol=0, atol=1e-6)
    torch.testing.assert_close(after[:3, 3], before[:3, 3] * scale, rtol=1e-6, atol=1e-4)


def test_relative_to_first_without_a_radius_keeps_distances_and_is_done_once():
    cameras = random_cameras(2, 3)
    turned = cameras.relative_to_first()
    torch.testing.assert_close(turned.centers.norm(dim=-1), cameras.centers.norm(dim=-1), **EXACT)
    torch.testing.assert_close(turned.centers[..., 1], cameras.centers[..., 1], **EXACT)
    again = turned.relative_to_first()
    torch.testing.assert_close(again.camera_to_world, turned.camera_to_world, **EXACT)
    with pytest.raises(ValueError, match="needs a dimension of views"):
        cameras[0, 0].relative_to_first()


def test_a_first_camera_overhead_is_turned_by_its_image():
    cameras = orbit_cameras([70.0, 0.0], [90.0, 10.0], width=4, height=4)
    pose = cameras.camera_to_world.clone()
    angle = torch.tensor(0.8)
    pose[0, :3, :3] = rodrigues(torch.tensor([0.0, 1, 0]), angle) @ pose[0, :3, :3]
    turned = Cameras(pose, cameras.intrinsics, width=4, height=4).relative_to_first()
    # The upper edge of its image, minus the second column, points to -Z afterwards.
    torch.testing.assert_close(turned.camera_to_world[0, :3, 1], torch.tensor([0.0, 0, 1]), rtol=0, atol=1e-4)


def test_normals_turn_with_the_world():
    cameras = orbit_cameras([90.0, 0.0], 10.0, width=4, height=4)
    normals = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1).expand(2, 3, 2, 2)
    turned = normals_to_first_view(normals, cameras)
    # Seen from +X, a normal towards +X faces the camera, which stands on +Z afterwards.
    expected = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1).expand(2, 3, 2, 2)
    torch.testing.assert_close(turned, expected, **SINGLE)
    with pytest.raises(ValueError, match="leading dimensions"):
        normals_to_first_view(normals[:1], cameras)


# Pixels, rays, unprojection


def test_pixel_coordinates_of_both_grids():
    cameras = random_cameras(1, width=4, height=2)
    center, legacy = cameras.pixel_coordinates("center"), cameras.pixel_coordinates("legacy")
    assert center.shape == (2, 4, 2)
    assert center[0, :, 0].tolist() == [0.125, 0.375, 0.625, 0.875]
    assert center[:, 0, 1].tolist() == [0.25, 0.75]
    assert legacy[1, :, 0].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert legacy[:, 3, 1].tolist() == [0, 1]
    assert cameras.resized(1, 1).pixel_coordinates("legacy").tolist() == [[[0, 0]]]


@pytest.mark.parametrize("grid", ["center", "legacy"])
def test_projecting_what_was_unprojected_gives_the_pixels_back(grid):
    cameras = random_cameras(2, 3)
    depth = torch.rand(2, 3, 1, 5, 7, dtype=torch.float64) * 3 + 0.1
    points = cameras.unproject(depth, grid).flatten(-2)
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1, :])], -2)
    x, y, z, _ = (torch.linalg.inv(cameras.camera_to_world) @ homogeneous).unbind(-2)
    torch.testing.assert_close(z, depth.flatten(-3), **EXACT)
    fx, fy, cx, cy = (value[..., None] for value in cameras.intrinsics.unbind(-1))
    found = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    expected = cameras.pixel_coordinates(grid).flatten(0, 1).expand_as(found)
    torch.testing.assert_close(found, expected, **EXACT)


def test_unprojection_refuses_other_sizes():
    cameras = random_cameras(2)
    with pytest.raises(ValueError, match=r"depth has shape"):
        cameras.unproject(torch.ones(2, 1, 7, 5).double())
    with pytest.raises(ValueError, match=r"leading dimensions \(3,\), expected \(2,\)"):
        cameras.unproject(torch.ones(3, 1, 5, 7).double())


@pytest.mark.parametrize("grid", ["center", "legacy"])
def test_pluecker_coordinates(grid):
    cameras = random_cameras(2, 3)
    moment, direction = plucker_rays(cameras, grid).split(3, dim=-3)
    torch.testing.assert_close(direction.norm(dim=-3), torch.ones(2, 3, 5, 7, dtype=torch.float64), **EXACT)
    torch.testing.assert_close((moment * direction).sum(-3), torch.zeros(2, 3, 5, 7).double(), **EXACT)
    # Every point p of the line has p x d = m.
    for distance in (0.0, 1.7, -20.0):
        point = cameras.centers[..., None, None] + distance * direction
        torch.testing.assert_close(torch.linalg.cross(point, direction, dim=-3), moment, rtol=0, atol=1e-8)


def test_rays_of_the_centre_grid_pass_through_the_unprojected_points():
    cameras = random_cameras(2, 3)
    points = cameras.unproject(torch.full((2, 3, 1, 5, 7), 2.5, dtype=torch.float64))
    offset = points - cameras.centers[..., None, None]
    torch.testing.assert_close(ray_directions(cameras), offset / offset.norm(dim=-3, keepdim=True), **EXACT)


def test_legacy_rays_are_those_of_a_principal_point_half_an_image_away():
    """Written out for one pixel of an upright camera, from the formula of the conventions."""
    cameras = orbit_cameras([0.0], 0.0, width=5, height=5, focal=1.25)
    column, row = 3, 1
    x, y = column / 4 + 0.5 - 0.5, row / 4 + 0.5 - 0.5
    length = math.sqrt((x / 1.25) ** 2 + (y / 1.25) ** 2 + 1)
    # The camera on +Z looks along -Z, with its y downwards.
    expected = [x / 1.25 / length, -y / 1.25 / length, -1 / length]
    assert ray_directions(cameras, "legacy")[0, :, row, column].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_depth_map_is_bright_where_near_and_white_where_nothing_is():
    depth = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]], [[[3.0, 0.0], [0.0, 1.5]]]])
    grey = torch.tensor([[[1.0, 0.75], [0.5, 0.0]], [[0.0, 1.0], [1.0, 0.5]]])
    picture = depth_control_map(depth)
    torch.testing.assert_close(picture, grey[:, None].expand(2, 3, 2, 2), rtol=0, atol=0)
    half = depth_control_map(depth, torch.full_like(depth, 0.5))
    torch.testing.assert_close(half[:, 0], grey * 0.5 + 0.5, rtol=0, atol=0)
    assert bool((depth_control_map(torch.zeros(1, 1, 2, 2)) == 1).all())
    with pytest.raises(ValueError, match="spans -1 to 4"):
        depth_control_map(torch.tensor([[[-1.0, 4.0]]]))
