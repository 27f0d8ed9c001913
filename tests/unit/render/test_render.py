"""The door to the rasterizers: what it refuses, and which backend it takes."""

import importlib.util
from typing import Any

import pytest
import torch

from diffsplat.core import Splats
from diffsplat.render import render
from support.render_scenes import ring, shell


def _refused(message: str, splats: Splats | None = None, views: int = 1, **options: Any) -> None:
    splats = shell(5) if splats is None else splats
    with pytest.raises(ValueError, match=message) as caught:
        render(splats, ring(views, 4, 4), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("background", [(1.0, 1.0), (0.0, float("nan"), 0.0), (1.0, 1.0, 1.0, 1.0)])
def test_background_must_be_a_colour(background: tuple[float, ...]) -> None:
    _refused("three finite numbers", background=background, backend="reference")


def test_backend_must_be_known() -> None:
    _refused("backend is 'cuda', expected one of auto, cpu, gsplat, reference", backend="cuda")


def test_batches_must_match() -> None:
    pair = shell(4).map(lambda field: field.expand(2, *field.shape))
    _refused("cameras have the batch", splats=pair, views=3)


def test_cameras_need_a_dimension_of_views() -> None:
    with pytest.raises(ValueError, match="cameras have the batch"):
        render(shell(4), ring(1, 4, 4)[0])


def test_nan_is_refused() -> None:
    splats = shell(5)
    means = splats.means.clone()
    means[2, 1] = float("nan")
    with pytest.raises(ValueError, match="means has 1 NaN") as caught:
        render(Splats(means, splats.scales, splats.quats, splats.opacities, splats.colors), ring(1, 4, 4))
    assert "\n" not in str(caught.value)


def test_gsplat_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"diffsplat\[cuda\]"):
        render(shell(5), ring(1, 4, 4), backend="gsplat")


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_background_is_composited(backend: Any) -> None:
    splats, cameras = shell(100).to(torch.float32), ring(1, 12, 12, torch.float32)
    color = torch.tensor([0.25, 0.5, 1.0])
    black = render(splats, cameras, background=(0.0, 0.0, 0.0), backend=backend)
    tinted = render(splats, cameras, background=color, backend=backend)
    expected = black.rgb + (1 - black.alpha) * color[:, None, None]
    torch.testing.assert_close(tinted.rgb, expected, rtol=0, atol=1e-6)


def test_normals_can_be_left_out() -> None:
    splats, cameras = shell(100).to(torch.float32), ring(1, 12, 12, torch.float32)
    full, fast = render(splats, cameras), render(splats, cameras, normals=False)
    assert fast.normal is None
    assert full.normal is not None
    torch.testing.assert_close(full.rgb, fast.rgb, rtol=0, atol=1e-6)


def test_other_devices_are_left_to_plain_pytorch_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    def on_meta(values: Any) -> Any:
        """Without entries, because the values of tensors there cannot be checked."""
        return values.map(lambda field: field[:0]).to("meta")

    for _ in range(2):
        image = render(on_meta(shell(5)), on_meta(ring(1, 4, 4)))
    assert image.rgb.device.type == "meta"
    assert [record.getMessage() for record in caplog.records] == [
        "no fast rasterizer works on meta: plain PyTorch renders, slowly"
    ]
