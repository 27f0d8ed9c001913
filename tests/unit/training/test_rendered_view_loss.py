"""The loss of rendered views against formulas written out."""

import pytest
import torch
from torch import Tensor

from diffsplat.core import Rendering, Views
from diffsplat.geometry import ring_cameras
from diffsplat.training.rendered_view_loss import RenderedViewLoss, RenderedViewWeights
from support.training_recordings import box_distance

SIZE = 8


def make_views() -> Views:
    torch.manual_seed(0)
    cameras = ring_cameras(size=SIZE).for_objects(2)
    channels = {"image": 3, "mask": 1, "normal": 3, "coord": 3, "depth": 1}
    images = {name: torch.rand(2, 4, count, SIZE, SIZE) for name, count in channels.items()}
    return Views(**images, cameras=cameras)


def make_rendering() -> Rendering:
    torch.manual_seed(1)
    rgb, alpha = torch.rand(2, 4, 3, SIZE, SIZE), torch.rand(2, 4, 1, SIZE, SIZE)
    return Rendering(rgb.requires_grad_(), alpha, torch.rand(2, 4, 1, SIZE, SIZE) + 1)


def test_loss_of_the_embedded_model_s_reconstructor():
    """Squared errors of colour and coverage plus a tenth of the absolute colour error, means over the batch."""
    views, rendering = make_views(), make_rendering()
    losses = RenderedViewLoss(RenderedViewWeights(absolute=0.1))(rendering, views)
    difference = rendering.rgb - views.image
    coverage = (rendering.alpha - views.mask).square().mean()
    expected = difference.square().mean() + coverage + 0.1 * difference.abs().mean()
    torch.testing.assert_close(losses.total.mean(), expected)
    assert losses.terms.keys() == {"rgb", "mask", "absolute"}


def test_an_object_s_loss_does_not_depend_on_the_others():
    views, rendering = make_views(), make_rendering()
    loss = RenderedViewLoss(RenderedViewWeights(perceptual=1.0, coord=0.5), box_distance)
    alone = Rendering(rendering.rgb[1:], rendering.alpha[1:], rendering.depth[1:])
    expected = loss(alone, views.objects(slice(1, 2))).total
    torch.testing.assert_close(loss(rendering, views).total[1:], expected)


@pytest.mark.parametrize(
    ("step", "share"), [(1, 0.0), (99, 0.0), (100, 0.0), (150, 0.25), (300, 1.0), (301, 1.0), (10_000, 1.0)]
)
def test_warm_up_of_the_perceptual_distance(step: int, share: float):
    weights = RenderedViewWeights(perceptual=2.0, warmup_start=100, warmup_end=300)
    assert weights.of("perceptual", step) == 2 * share
    assert weights.of("rgb", step) == 1.0


def test_without_warm_up_the_perceptual_distance_counts_from_the_first_step():
    assert RenderedViewWeights(perceptual=1.0).of("perceptual", 1) == 1.0


def test_a_distance_without_weight_yet_is_measured_without_gradient():
    seen: list[bool] = []

    def distance(first: Tensor, second: Tensor) -> Tensor:
        seen.append(torch.is_grad_enabled())
        return box_distance(first, second)

    weights = RenderedViewWeights(perceptual=1.0, warmup_start=5, warmup_end=10, perceptual_size=0)
    loss = RenderedViewLoss(weights, distance)
    views, rendering = make_views(), make_rendering()
    early, late = loss(rendering, views, 1), loss(rendering, views, 20)
    assert seen == [False, True]
    torch.testing.assert_close(early.terms["perceptual"], late.terms["perceptual"])
    torch.testing.assert_close(late.total - early.total, late.terms["perceptual"])


def test_the_perceptual_distance_sees_images_of_the_size_asked_for():
    shapes: list[tuple[int, ...]] = []

    def distance(first: Tensor, _second: Tensor) -> Tensor:
        shapes.append(tuple(first.shape))
        assert -1 <= float(first.min()) < -0.5
        return first.flatten(1).mean(dim=1)

    for size in (0, 16):
        weights = RenderedViewWeights(perceptual=1.0, perceptual_size=size)
        RenderedViewLoss(weights, distance)(make_rendering(), make_views())
    assert shapes == [(8, 3, SIZE, SIZE), (8, 3, 16, 16)]


def test_autocast_does_not_round_the_loss():
    """The gradient too; the perceptual network alone computes in bfloat16."""
    views, gradients = make_views(), []
    loss = RenderedViewLoss(RenderedViewWeights(absolute=0.1, coord=1.0, normal=1.0))
    for enabled in (False, True):
        plain = make_rendering()
        normals = torch.full_like(plain.rgb, 0.3).detach()
        rendering = Rendering(plain.rgb, plain.alpha, plain.depth, normals)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            total = loss(rendering, views).total.sum()
        total.backward()
        gradients.append((total.detach(), plain.rgb.grad))
    assert gradients[1][0].dtype == torch.float32
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


def test_what_a_loss_needs():
    assert not RenderedViewLoss(RenderedViewWeights()).needs_normals
    assert RenderedViewLoss(RenderedViewWeights(normal=0.1)).needs_normals
    with pytest.raises(ValueError, match="perceptual loss has the weight"):
        RenderedViewLoss(RenderedViewWeights(perceptual=1.0))
    with pytest.raises(ValueError, match="needs renderings with normals"):
        RenderedViewLoss(RenderedViewWeights(normal=0.1))(make_rendering(), make_views())
