"""What an image shows comes back in the first view, wherever the network had put it."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from diffsplat.core import SplatGrid, Splats
from diffsplat.core.splat_grid import DEPTH, OPACITY, RGB, SCALE
from diffsplat.geometry.camera_orbits import ring_cameras
from diffsplat.images.depth_control_map import depth_control_map
from diffsplat.models.principal_component_autoencoder import ComponentAutoencoder
from diffsplat.models.rays_and_noise_levels import TIMESTEPS
from diffsplat.pipelines.first_view_projection import KnownView, ProjectedFlow
from diffsplat.pipelines.image_and_control_conditions import ConditionImages
from diffsplat.pretrained.release_catalogue import ControlKind
from diffsplat.render import render

SIZE = 32
DEPTH_VALUE = 0.25
CAMERA = ring_cameras(20.0, size=SIZE)[0]


@pytest.fixture
def outline() -> torch.Tensor:
    mask = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    mask[0, 8:24, 6:20] = True
    return mask


@pytest.fixture
def image(outline: torch.Tensor) -> torch.Tensor:
    """Two halves of different colours, on white."""
    colors = torch.ones(3, SIZE, SIZE)
    colors[:, :, :12] = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    colors[:, :, 12:] = torch.tensor([0.1, 0.3, 0.8])[:, None, None]
    return torch.where(outline, colors, 1.0)


def grey_grid(opacity: torch.Tensor) -> SplatGrid:
    """A plane of grey Gaussians of a pixel's size at one depth, in all four views."""
    values = torch.zeros(1, 4, 12, SIZE, SIZE)
    values[:, :, SCALE] = -1
    values[:, :, 6] = 1
    values[:, :, OPACITY] = opacity * 2 - 1
    values[:, :, DEPTH] = DEPTH_VALUE
    return SplatGrid(values)


def test_first_view_shows_the_image(outline: torch.Tensor, image: torch.Tensor):
    cameras = ring_cameras(20.0, size=SIZE)
    known = KnownView(cameras[0], outline, image)
    half_missing = torch.zeros(SIZE, SIZE)
    half_missing[:, :14] = 1
    grid = known.painted(known.filled(grey_grid(half_missing)))
    splats = known.carved(grid.to_splats(cameras.for_objects(1)), grid)
    first = slice(0, SIZE * SIZE)
    front = Splats(*(getattr(splats, name)[:, first] for name in splats.__dataclass_fields__))
    rendering = render(front, cameras.for_objects(1)[:, :1])
    inner = torch.zeros_like(outline)
    inner[0, 10:22, 8:11] = inner[0, 10:22, 14:18] = True
    shown = torch.where(inner, rendering.rgb[0, 0], image)
    torch.testing.assert_close(shown, image, atol=0.06, rtol=0)
    far = torch.ones_like(outline)
    far[0, 4:28, 2:24] = False
    assert float(rendering.alpha[0, 0][far].max()) < 0.01


def test_holes_take_the_surface_around_them_and_the_rest_keeps_its_own(
    outline: torch.Tensor, image: torch.Tensor
):
    holed = outline[0].float()
    holed[12:18, 8:14] = 0
    grid = grey_grid(holed)
    values = grid.values.clone()
    values[:, :1, DEPTH] = torch.where(holed > 0, DEPTH_VALUE, -0.9)  # what holes hold means nothing
    orange = torch.tensor([0.8, 0.2, -0.6])[:, None, None]
    values[:, :1, RGB] = torch.where(holed > 0, orange, 0.0)
    filled = KnownView(CAMERA, outline).filled(SplatGrid(values)).values
    torch.testing.assert_close(filled[0, 0, RGB] * outline, orange * outline, atol=1e-5, rtol=0)
    painted_later = KnownView(CAMERA, outline, image).filled(SplatGrid(values)).values
    assert torch.equal(painted_later[0, 0, RGB], values[0, 0, RGB])
    torch.testing.assert_close(
        filled[0, 0, DEPTH][outline], torch.full((int(outline.sum()),), DEPTH_VALUE), atol=1e-5, rtol=0
    )
    assert torch.equal(filled[0, 0, OPACITY] > 0, outline)
    assert torch.equal(filled[:, 1:], values[:, 1:])


def test_a_view_without_any_surface_lies_at_its_mean_depth(outline: torch.Tensor):
    filled = KnownView(CAMERA, outline).filled(grey_grid(torch.zeros(SIZE, SIZE))).values
    assert torch.isfinite(filled).all()
    assert float(filled[0, 0, DEPTH][outline].abs().max()) == 0


def test_a_depth_map_gives_the_first_view_its_shape(outline: torch.Tensor):
    """A slope that faces the camera, of which the network made a plane; the map tells no unit."""
    slope = torch.linspace(-0.3, 0.3, SIZE).expand(1, SIZE, SIZE)
    depth = slope + torch.linalg.vector_norm(CAMERA.centers)
    control = depth_control_map(depth, outline.float())
    known = KnownView.of(ConditionImages(control=control, outline=outline), "depth", CAMERA)
    assert known is not None
    generated = grey_grid(outline[0].float())
    plane = float(depth[outline].mean()) - float(torch.linalg.vector_norm(CAMERA.centers))
    generated.values[:, :1, DEPTH] = plane
    filled = known.filled(generated).values[0, 0, DEPTH]
    inner = torch.zeros_like(outline)
    inner[0, 9:23, 7:19] = True
    torch.testing.assert_close(filled[inner], slope[inner], atol=0.01, rtol=0)
    assert float((filled - plane).abs()[inner].max()) > 0.1


def tilted_plane() -> tuple[torch.Tensor, torch.Tensor]:
    """Depths ``[1, H, W]`` of a plane through the origin, and its normal map ``[3, H, W]`` 0..1 in world axes."""
    normal = functional.normalize(CAMERA.centers + torch.tensor([0.6, 0.0, 0.0]), dim=0)
    rays = CAMERA.unproject(torch.ones(1, SIZE, SIZE)) - CAMERA.centers[:, None, None]
    depth = -(normal @ CAMERA.centers) / torch.einsum("i,ihw->hw", normal, rays)
    return depth[None], (normal / 2 + 0.5)[:, None, None].expand(3, SIZE, SIZE)


def of_normals(outline: torch.Tensor, normals: torch.Tensor) -> KnownView:
    """What a normal map tells; at its rim, as in rendered ones, it is mixed with the white around the object."""
    share = functional.avg_pool2d(outline.float(), 3, 1, 1) * outline
    control = normals * share + 1 - share
    known = KnownView.of(ConditionImages(control=control, outline=outline), "normal", CAMERA)
    assert known is not None
    return known


def test_a_normal_map_bends_the_first_view(outline: torch.Tensor):
    """Of a plane across the image the map makes a slope; how far away it lies stays the network's."""
    depth, normals = tilted_plane()
    filled = of_normals(outline, normals).filled(grey_grid(outline[0].float())).values[0, 0, DEPTH]
    found = filled + torch.linalg.vector_norm(CAMERA.centers)
    assert float((1 / depth)[outline].log().std()) > 0.03
    assert float((found / depth)[outline].log().std()) < 0.003
    assert float(filled[outline].mean()) == pytest.approx(DEPTH_VALUE, abs=0.02)


def test_gaussians_of_a_known_surface_lie_on_it(outline: torch.Tensor):
    """Smoothing turns and moves them; afterwards the view has the normals of its map again, and colours stay smooth."""
    _, normals = tilted_plane()
    known, cameras = of_normals(outline, normals), ring_cameras(20.0, size=SIZE).for_objects(1)
    whole = known.filled(grey_grid(outline[0].float()))
    smooth = grey_grid(torch.ones(SIZE, SIZE))
    smooth.values[:, :, RGB] = 0.5
    found = known.restored(smooth, whole, cameras, "center")
    assert torch.equal(found.values[:, :, RGB], smooth.values[:, :, RGB])
    assert torch.equal(found.values[:, 1:], smooth.values[:, 1:])
    camera = cameras[:, :1]
    rendering = render(SplatGrid(found.values[:, :1]).to_splats(camera), camera)
    inner = torch.zeros_like(outline)
    inner[0, 11:21, 9:17] = True
    expected = functional.normalize(normals * 2 - 1, dim=0)
    assert rendering.normal is not None
    cosine = functional.cosine_similarity(rendering.normal[0, 0], expected, dim=0)
    assert float(cosine[inner[0]].min()) > 0.99
    unknown = KnownView(CAMERA, outline)
    assert unknown.restored(smooth, whole, cameras, "center") is smooth


def test_without_an_image_colours_stay(outline: torch.Tensor):
    grid = grey_grid(torch.ones(SIZE, SIZE))
    painted = KnownView(CAMERA, outline).painted(grid).values
    assert torch.equal(painted[:, :, RGB], grid.values[:, :, RGB])
    assert torch.equal(painted[0, 0, OPACITY] > 0, outline)
    assert bool((painted[0, 1:, OPACITY] == 1).all())


def test_what_contradicts_the_view_goes():
    """Points on the axis of the camera project to the middle of the image, at any depth."""
    camera = ring_cameras(0.0, size=SIZE)[0]
    right, _, forward = camera.camera_to_world[:3, :3].unbind(-1)
    edge = camera.centers + 1.4 * forward + right * (1.4 * 0.5 / float(camera.intrinsics[0]))
    behind = camera.centers - forward
    points = [torch.zeros(3), 0.2 * forward, -0.3 * forward, edge * 0.5, edge * 1.02, behind]
    splats = Splats(
        means=torch.stack(points)[None],
        scales=torch.full((1, 6, 3), 0.01),
        quats=torch.tensor([1.0, 0, 0, 0]).expand(1, 6, 4).contiguous(),
        opacities=torch.ones(1, 6),
        colors=torch.zeros(1, 6, 3),
    )
    grid = grey_grid(torch.ones(SIZE, SIZE))
    grid.values[:, :, DEPTH] = -0.1  # the first view's surface passes in front of the origin
    middle = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    middle[:, 14:18, 14:18] = True
    assert KnownView(camera, middle).carved(splats, grid).opacities[0].tolist() == [1, 1, 0, 0, 0, 0]
    everywhere = torch.ones_like(middle)
    shaped = KnownView(camera, middle, depth=torch.ones(1, SIZE, SIZE))
    close = replace(
        splats, means=splats.means - (0.1 + 0.03) * forward * (splats.means.norm(dim=-1) == 0)[..., None]
    )
    assert KnownView(camera, middle).carved(close, grid).opacities[0].tolist() == [1, 1, 0, 0, 0, 0]
    assert shaped.carved(close, grid).opacities[0].tolist() == [0, 1, 0, 0, 0, 0]
    assert KnownView(camera, everywhere).carved(splats, grid).opacities[0].tolist() == [1, 1, 0, 1, 0, 0]


def test_a_projected_flow_ends_in_the_image(outline: torch.Tensor, image: torch.Tensor):
    """Followed from noise in one step, with an autoencoder that loses nothing; the other views are the flow's own."""
    autoencoder = ComponentAutoencoder(image_size=SIZE, patch=2, latent_channels=48)
    target = autoencoder.encode(grey_grid(outline[0].float()))
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    level = torch.full((1,), 0.5 * TIMESTEPS)
    noisy = (noise + target) / 2
    flow = ProjectedFlow(
        lambda _latents, _timestep: noise - target, KnownView(CAMERA, outline, image), autoencoder
    )
    clean = noisy - 0.5 * flow(noisy, level)
    shown = autoencoder.decode(clean).values[0, 0]
    torch.testing.assert_close((shown[RGB] / 2 + 0.5)[:, outline[0]], image[:, outline[0]], atol=1e-4, rtol=0)
    assert torch.equal(shown[OPACITY] > 0, outline)
    torch.testing.assert_close(clean[:, 1:], target[:, 1:], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "channels"), [("canny", 3), (None, 3), (None, 6)])
def test_edges_and_several_maps_tell_an_outline_and_no_surface(
    outline: torch.Tensor, kind: ControlKind | None, channels: int
):
    control = torch.zeros(channels, SIZE, SIZE)
    known = KnownView.of(ConditionImages(control=control, outline=outline), kind, CAMERA)
    assert known is not None
    assert (known.image, known.depth, known.depth_steps) == (None, None, None)


@pytest.mark.parametrize("kind", ["depth", "normal"])
def test_maps_that_show_next_to_nothing_are_finite(kind: ControlKind):
    blank, stick = torch.zeros(1, SIZE, SIZE, dtype=torch.bool), torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    stick[0, 4:28, 15:17] = True
    control = torch.where(stick, 0.4, 1.0).expand(3, -1, -1)
    assert KnownView.of(ConditionImages(control=control, outline=blank), kind, CAMERA) is None
    known = KnownView.of(ConditionImages(control=control, outline=stick), kind, CAMERA)
    assert known is not None
    filled = known.filled(grey_grid(torch.zeros(SIZE, SIZE))).values
    assert torch.isfinite(filled).all()
    assert torch.equal(filled[0, 0, OPACITY] > 0, stick)


@pytest.mark.parametrize("kind", ["depth", "normal"])
def test_a_map_that_is_white_on_the_object_is_finite(outline: torch.Tensor, kind: ControlKind):
    """Of a depth map, that is the nearest that there is: no depth at all."""
    images = ConditionImages(control=torch.ones(3, SIZE, SIZE), outline=outline)
    known = KnownView.of(images, kind, CAMERA)
    assert known is not None
    assert torch.isfinite(known.filled(grey_grid(outline[0].float())).values).all()


def test_no_outline_no_projection():
    assert KnownView.of(ConditionImages(control=torch.zeros(3, 4, 4)), "canny", CAMERA) is None
