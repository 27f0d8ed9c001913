"""The gsplat backend against the float64 reference, on a CUDA device."""

import pytest
import torch

from diffsplat.core import Splats
from diffsplat.render import render
from support.render_scenes import gradients, leaves, ring, shell

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("normals", [False, True])
def test_agrees_with_the_reference(normals: bool) -> None:
    pytest.importorskip("gsplat")
    whole = shell(2000)
    # gsplat cuts alpha elsewhere: only opacities below the cut are the same model.
    splats = Splats(whole.means, whole.scales, whole.quats, whole.opacities.clamp(max=0.98), whole.colors)
    cameras = ring(2, 50, 40)
    exact_fields, fast_fields = leaves(splats), leaves(splats.to("cuda", torch.float32))
    background = (0.2, 0.5, 0.9)
    exact = render(exact_fields, cameras, background=background, backend="reference", normals=normals)
    fast = render(fast_fields, cameras.to("cuda", torch.float32), background=background, normals=normals)
    pairs = [(fast.rgb, exact.rgb), (fast.alpha, exact.alpha)]
    pairs.append((fast.depth * fast.alpha.detach(), exact.depth * exact.alpha.detach()))
    if fast.normal is not None and exact.normal is not None:
        pairs.append((fast.normal, exact.normal))
    wrong = torch.zeros_like(exact.alpha, dtype=torch.bool)
    for got, expected in pairs:
        wrong |= ((got.cpu() - expected).abs() > 1e-4).any(dim=-3, keepdim=True)
    assert int(wrong.sum()) <= 20
    for got, expected in pairs:
        (got.cpu() * ~wrong).square().sum().backward(retain_graph=True)
        (expected * ~wrong).square().sum().backward(retain_graph=True)
    for name, expected in gradients(exact_fields).items():
        error = (gradients(fast_fields)[name].cpu() - expected).norm()
        assert float(error) <= 1e-3 * float(expected.norm()), name
