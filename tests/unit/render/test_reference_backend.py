"""The float64 reference against closed forms, an independent loop, and finite differences."""

import numpy as np
import pytest
import torch

from diffsplat.core import Cameras, Splats
from diffsplat.render import reference_backend, render
from support.render_scenes import FIELDS, FOCAL, footprint_alpha, in_front, paint, ring, shell, single


def test_one_gaussian_has_the_closed_form() -> None:
    # Footprint: sigma * focal / depth = 0.1 * 1.4 * 31 / 2 pixels, centred in the middle pixel.
    image = render(single(), in_front(2.0, 31, 31), background=(1.0, 0.0, 0.5), backend="reference")
    pixels = 0.1 * FOCAL * 31 / 2.0
    for offset in (0, 1, 2, 5):
        alpha = footprint_alpha(0.8, pixels, offset)
        expected = np.array([0.25, 0.5, 0.75]) * alpha + np.array([1.0, 0.0, 0.5]) * (1 - alpha)
        assert image.alpha[0, 0, 15, 15 + offset] == pytest.approx(alpha, abs=1e-12)
        assert image.alpha[0, 0, 15 - offset, 15] == pytest.approx(alpha, abs=1e-12)
        assert image.rgb[0, :, 15, 15 + offset].numpy() == pytest.approx(expected, abs=1e-12)
        assert image.depth[0, 0, 15, 15 + offset] == pytest.approx(2.0, abs=1e-12)
    # Alpha below 1/255 is skipped: nothing at all, so the background is exact and there is no depth.
    assert image.alpha[0, 0, 0, 0] == 0
    assert image.rgb[0, :, 0, 0].tolist() == [1.0, 0.0, 0.5]
    assert image.depth[0, 0, 0, 0] == 0


def test_two_gaussians_blend_front_to_back() -> None:
    pair = Splats(
        means=torch.tensor([[0.0, 0, -0.5], [0, 0, 0.5]], dtype=torch.float64),
        scales=torch.full((2, 3), 0.2, dtype=torch.float64),
        quats=torch.tensor([[1.0, 0, 0, 0]] * 2, dtype=torch.float64),
        opacities=torch.tensor([0.5, 0.75], dtype=torch.float64),
        colors=torch.tensor([[1.0, 0, 0], [0, 1, 0]], dtype=torch.float64),
    )
    image = render(pair, in_front(2.0, 9, 9), background=(0.0, 0.0, 1.0), backend="reference")
    # The second one is nearer: weights 0.75 (z 1.5) and 0.25 * 0.5 (z 2.5), 0.125 of the background.
    assert image.rgb[0, :, 4, 4].tolist() == pytest.approx([0.125, 0.75, 0.125], abs=1e-12)
    assert image.alpha[0, 0, 4, 4].item() == pytest.approx(0.875, abs=1e-12)
    assert image.depth[0, 0, 4, 4].item() == pytest.approx((0.75 * 1.5 + 0.125 * 2.5) / 0.875, abs=1e-12)


def test_alpha_is_cut_and_the_pixel_finishes() -> None:
    count = 6
    stack = Splats(
        means=torch.zeros(count, 3, dtype=torch.float64),
        scales=torch.full((count, 3), 0.2, dtype=torch.float64),
        quats=torch.tensor([[1.0, 0, 0, 0]] * count, dtype=torch.float64),
        opacities=torch.full((count,), 0.92, dtype=torch.float64),
        colors=torch.ones(count, 3, dtype=torch.float64),
    )
    image = render(stack, in_front(2.0, 9, 9), background=(0.0, 0.0, 0.0), backend="reference")
    # 0.08^4 is below the stop: the fourth splat would get there, so it is left out, with all behind it.
    assert image.alpha[0, 0, 4, 4].item() == pytest.approx(1 - 0.08**3, abs=1e-12)
    opaque = single(opacities=[1.0])
    image = render(opaque, in_front(2.0, 9, 9), background=(0.0, 0.0, 0.0), backend="reference")
    assert image.alpha[0, 0, 4, 4].item() == pytest.approx(0.99, abs=1e-12)


def test_normal_is_the_shortest_axis_towards_the_camera() -> None:
    turned = torch.nn.functional.normalize(torch.tensor([1.0, 0.3, -0.2, 0.1], dtype=torch.float64), dim=0)
    flat = single(scales=[[0.2, 0.2, 0.01]], quats=[turned.tolist()])
    image = render(flat, in_front(2.0, 9, 9), backend="reference")
    w, x, y, z = turned.tolist()
    axis = np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])
    assert axis[2] > 0  # already faces the camera on the +Z side
    assert image.normal is not None
    assert image.normal[0, :, 4, 4].numpy() == pytest.approx(0.8 * axis, abs=1e-12)
    behind = render(flat, _from_behind(), backend="reference")
    assert behind.normal is not None
    assert behind.normal[0, :, 4, 4].numpy() == pytest.approx(-0.8 * axis, abs=1e-12)


def _from_behind() -> Cameras:
    pose = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))
    pose[2, 3] = -2.0
    return Cameras(pose[None], torch.tensor([[FOCAL, FOCAL, 0.5, 0.5]], dtype=torch.float64), 9, 9)


@pytest.mark.parametrize(("width", "height"), [(40, 24), (17, 33), (1, 1)])
def test_agrees_with_the_textbook_loop(width: int, height: int) -> None:
    splats, cameras = shell(300), ring(2, width, height)
    image = render(splats, cameras, background=(0.2, 0.9, 0.4), backend="reference")
    for view in range(2):
        painted = paint(splats, cameras, view, np.array([0.2, 0.9, 0.4]))
        for name, expected in painted.items():
            np.testing.assert_allclose(getattr(image, name)[view].numpy(), expected, atol=1e-9, err_msg=name)


def test_bands_do_not_change_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    splats, cameras = shell(200), ring(1, 33, 29)
    whole = render(splats, cameras, backend="reference")
    monkeypatch.setattr(reference_backend, "_PAIRS_AT_ONCE", 500)
    fields = splats.map(lambda field: field.clone().requires_grad_())
    banded = render(fields, cameras, backend="reference")
    torch.testing.assert_close(banded.rgb, whole.rgb, rtol=0, atol=1e-12)
    torch.testing.assert_close(banded.depth, whole.depth, rtol=0, atol=1e-12)
    (banded.rgb.sum() + banded.depth.sum()).backward()
    assert all(bool(getattr(fields, name).grad.abs().sum() > 0) for name in FIELDS)


def test_gradients_agree_with_finite_differences() -> None:
    splats, cameras = shell(8, seed=3, size=0.12), ring(2, 7, 6)
    fields = [
        getattr(splats, name).clamp(max=0.9) if name == "opacities" else getattr(splats, name)
        for name in FIELDS
    ]
    fields = [field.clone().requires_grad_() for field in fields]

    def images(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        image = render(_unchecked(values), cameras, background=(0.1, 0.5, 0.9), backend="reference")
        assert image.normal is not None
        return image.rgb, image.alpha, image.depth * image.alpha, image.normal

    assert torch.autograd.gradcheck(images, fields, eps=1e-6, atol=1e-6, rtol=1e-4)


def _unchecked(values: tuple[torch.Tensor, ...]) -> Splats:
    """Splats whose quaternions may be a finite difference away from unit length."""
    return Splats(**dict(zip(FIELDS, values, strict=True)))
