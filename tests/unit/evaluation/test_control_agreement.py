"""Control images of views, and the agreement of results with them, against closed forms."""

import pytest
import torch

from diffsplat.core import Rendering, Views
from diffsplat.evaluation.control_agreement import control_agreement, control_images, edge_f1
from diffsplat.geometry import ring_cameras
from diffsplat.pretrained.release_catalogue import ControlKind

SIZE = 32
SQUARE = (slice(None), slice(None), slice(None), slice(8, 24), slice(8, 24))


def views_of_a_square() -> Views:
    """A grey square at depth 1.2, facing the camera, in all four views."""
    shape = (1, 4, 1, SIZE, SIZE)
    mask, depth = torch.zeros(shape), torch.zeros(shape)
    mask[SQUARE], depth[SQUARE] = 1.0, 1.2
    normal = torch.ones(1, 4, 3, SIZE, SIZE)
    normal[SQUARE] = torch.tensor([0.5, 0.5, 1.0])[:, None, None]
    image = (1 - 0.8 * mask).expand(1, 4, 3, SIZE, SIZE)
    cameras = ring_cameras(0.0, size=SIZE).for_objects(1)
    return Views(image, mask, normal, torch.ones_like(normal), depth, cameras, ("a square",))


def rendered(views: Views, shift: int = 0, tilt: float = 0.0) -> Rendering:
    """The first view again, moved to the right by some pixels, its normals tilted by an angle."""
    first = views.take(slice(0, 1))
    angle = torch.tensor(tilt)
    direction = torch.stack([angle.sin(), torch.tensor(0.0), angle.cos()])
    normal = direction[:, None, None] * first.mask
    parts = {"rgb": first.image, "alpha": first.mask, "depth": first.depth, "normal": normal}
    return Rendering(**{name: part.roll(shift, dims=-1) for name, part in parts.items()})


def test_depth_is_bright_where_near_and_white_where_nothing_is() -> None:
    control = control_images(views_of_a_square(), "depth")
    assert control.shape == (1, 3, SIZE, SIZE)
    assert float(control[0, 0, 16, 16]) == 0.0
    assert float(control[0, 0, 0, 0]) == 1.0


def test_edges_are_black_lines_around_the_square() -> None:
    edges = control_images(views_of_a_square(), "canny")[0, 0] < 0.5
    assert 4 * 12 < int(edges.sum()) < 4 * 20
    assert not bool(edges[12:20, 12:20].any())


@pytest.mark.parametrize(
    ("kind", "figure", "best"),
    [("depth", "depth_error", 0.0), ("normal", "normal_cosine", 1.0), ("canny", "edge_f1", 1.0)],
)
def test_a_result_that_follows_its_control_agrees_with_it(
    kind: ControlKind, figure: str, best: float
) -> None:
    views = views_of_a_square()
    figures = control_agreement(rendered(views), views, kind)
    assert figures["silhouette_iou"] == 1.0
    assert figures[figure] == pytest.approx(best, abs=1e-6)


def test_a_shifted_square_overlaps_in_part() -> None:
    """4 of 16 columns off: 12 in both, 20 in either."""
    views = views_of_a_square()
    figures = control_agreement(rendered(views, shift=4), views, "canny")
    assert figures["silhouette_iou"] == pytest.approx(12 / 20)
    assert figures["edge_f1"] < 0.8


@pytest.mark.parametrize("kind", ["depth", "normal"])
def test_where_nothing_overlaps_only_the_silhouettes_are_told(kind: ControlKind) -> None:
    views = views_of_a_square()
    assert control_agreement(rendered(views, shift=16), views, kind) == {"silhouette_iou": 0.0}


def test_tilted_normals_disagree_by_the_cosine() -> None:
    views = views_of_a_square()
    figures = control_agreement(rendered(views, tilt=0.5), views, "normal")
    assert figures["normal_cosine"] == pytest.approx(float(torch.tensor(0.5).cos()), abs=1e-6)


def test_edges_count_as_found_within_two_pixels() -> None:
    wanted = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool)
    wanted[..., 10] = True
    assert edge_f1(wanted.roll(2, dims=-1), wanted) == pytest.approx(1.0)
    assert edge_f1(wanted.roll(3, dims=-1), wanted) == 0.0
