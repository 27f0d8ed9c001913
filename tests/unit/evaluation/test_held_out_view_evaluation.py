"""Generation from images and control maps, measured on balls whose figures are known."""

import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from diffsplat.core import Splats, Views
from diffsplat.evaluation.held_out_view_evaluation import NearestObject, evaluate_controls, evaluate_images
from diffsplat.evaluation.perceptual_distance import VggDistance
from diffsplat.geometry import orbit_cameras
from diffsplat.render import render
from support.made_up_vgg import linear_weights, lpips_by_definition, torchvision_weights

SIZE = 32
AZIMUTHS = (0.0, 90.0, 180.0, 270.0, 45.0)


def ball(color: tuple[float, float, float], radius: float = 0.3) -> Splats:
    points = torch.randn(1, 2000, 3, generator=torch.Generator().manual_seed(1))
    return Splats(
        means=radius * points / points.norm(dim=-1, keepdim=True),
        scales=torch.full((1, 2000, 3), 0.02),
        quats=torch.tensor([1.0, 0, 0, 0]).expand(1, 2000, 4),
        opacities=torch.full((1, 2000), 0.95),
        colors=torch.tensor(color).expand(1, 2000, 3),
    )


RED, BLUE = ball((0.9, 0.1, 0.1)), ball((0.1, 0.1, 0.9))
NOTHING = Splats(RED.means, RED.scales, RED.quats, torch.zeros(1, 2000), RED.colors)


def views_of(splats: Splats) -> Views:
    cameras = orbit_cameras(AZIMUTHS, 10.0, width=SIZE, height=SIZE).map(lambda tensor: tensor[None])
    rendering = render(splats, cameras)
    assert rendering.normal is not None
    mask = (rendering.alpha > 0.5).float()
    normal = torch.where(mask > 0, rendering.normal / 2 + 0.5, 1.0)
    image = rendering.rgb.clamp(0, 1)
    return Views(image, mask, normal, torch.ones_like(normal), rendering.depth * mask, cameras, ("a ball",))


def decibels(image: Tensor) -> float:
    """PSNR of white, from its definition."""
    return -10 * math.log10(float((1 - image.double()).square().mean()))


def test_figures_tell_the_view_that_is_given_from_the_others():
    views = views_of(RED)
    makers = {"same": lambda _: RED, "empty": lambda _: NOTHING}
    result = evaluate_images(makers, [("a", views)])
    for part in ("seen", "novel"):
        assert result.figures[f"same_{part}_psnr"] > 60
        assert result.figures[f"same_{part}_ssim"] == pytest.approx(1, abs=1e-3)
    assert result.figures["empty_seen_psnr"] == pytest.approx(decibels(views.image[0, 0]), abs=1e-3)
    novel = sum(decibels(image) for image in views.image[0, 1:]) / 4
    assert result.figures["empty_novel_psnr"] == pytest.approx(novel, abs=1e-3)
    # The object, and what each of two made of it, in four views.
    assert result.sheet.shape == (3, 3 * SIZE + 2 * 2, 4 * SIZE + 3 * 2)


def test_perceptual_distances_of_the_view_that_is_given_and_of_the_others():
    views = views_of(RED)
    network = VggDistance.from_published(torchvision_weights(), linear_weights())
    figures = evaluate_images({"empty": lambda _: NOTHING}, [("a", views)], network).figures
    white = torch.ones_like(views.image[0, 0])
    distances = [lpips_by_definition(white, image) for image in views.image[0]]
    assert figures["empty_seen_lpips"] == pytest.approx(distances[0], abs=1e-4)
    assert figures["empty_novel_lpips"] == pytest.approx(sum(distances[1:]) / 4, abs=1e-4)


@pytest.mark.parametrize("kind", ["depth", "normal", "canny"])
def test_a_result_of_the_same_shape_agrees_with_its_map(kind):
    makers = {"with_map": lambda _: RED, "without": lambda _: ball((0.9, 0.1, 0.1), radius=0.15)}
    figures = evaluate_controls(makers, kind, [("a", views_of(RED))]).figures
    assert figures["with_map_silhouette_iou"] > 0.97
    # A quarter of the area lies inside.
    assert figures["without_silhouette_iou"] == pytest.approx(0.25, abs=0.08)


def test_no_object_is_refused():
    with pytest.raises(ValueError, match="got no objects"):
        evaluate_images({}, [])


@dataclass
class Rows:
    """Four views of two balls in place of a data set."""

    rows: list["Rings"] = field(default_factory=lambda: [Rings(), Rings()])
    loaded: list[tuple[int, list[int]]] = field(default_factory=list)

    def __len__(self) -> int:
        return 2

    def canonical(self, row: int) -> Views:
        return self.load_views(row, [3, 4, 5, 6])

    def load_views(self, row: int, views: list[int]) -> Views:
        self.loaded.append((row, views))
        shown = views_of((RED, BLUE)[row]).take(slice(0, 4))
        marks = torch.tensor(views, dtype=torch.float32).view(1, 4, 1, 1, 1) / 10
        return Views(
            torch.cat([shown.image[:, :, :1] * 0 + marks, shown.image[:, :, 1:]], dim=2),
            *(shown.mask, shown.normal, shown.coord, shown.depth, shown.cameras, shown.prompt),
        )


class Rings:
    def ring_views(self, _ring: int) -> list[int]:
        return [3, 4, 5, 6]


def test_the_nearest_object_is_seen_from_the_side_that_is_most_alike():
    def features(images):
        """Which view it is, and how blue."""
        return torch.stack(
            [torch.stack([image[0, 0, 0], image[2, 16, 16], image.new_tensor(0.3)]) for image in images]
        )

    rows = Rows()
    nearest = NearestObject.of(rows, features, lambda _: RED)  # type: ignore[arg-type]
    nearest(rows.load_views(1, [5, 0, 0, 0]))
    assert rows.loaded[-1] == (1, [5, 6, 3, 4])
