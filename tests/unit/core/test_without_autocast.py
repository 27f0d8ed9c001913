"""What autocast leaves alone: geometry, and what a transformer sums up."""

import pytest
import torch

from diffsplat.core import Cameras
from diffsplat.core.without_autocast import without_autocast
from diffsplat.geometry import normals_to_first_view, orbit_cameras, plucker_rays
from diffsplat.models.transformer_blocks import Transformer


@pytest.fixture
def cameras() -> Cameras:
    return orbit_cameras([0.0, 90.0, 200.0], 17.0, width=8, height=8)


def test_functions_of_cameras_do_not_change_under_autocast(cameras: Cameras) -> None:
    depth = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) + 1
    normals = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    functions = (
        lambda: plucker_rays(cameras),
        lambda: cameras.unproject(depth),
        lambda: cameras.world_to_camera,
        lambda: cameras.relative_to_first(1.4).camera_to_world,
        lambda: normals_to_first_view(normals, cameras),
    )
    for function in functions:
        expected = function()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = function()
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


def test_autocast_goes_on_after_the_function() -> None:
    product = without_autocast(lambda x: x @ x)
    x = torch.full((2, 2), 1.001)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product(x).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16


def test_blocks_add_up_in_the_type_of_the_weights() -> None:
    transformer = Transformer(dim=64, heads=1, blocks=8)
    tokens = torch.ones(1, 3, 64)
    for block in transformer.blocks:
        # What a block adds is below half of what bfloat16 can add to one.
        torch.nn.init.constant_(block.mlp.w2.weight, 0.0)
        block.attn.wv.register_forward_hook(lambda *_: torch.full((1, 3, 64), 0.002, dtype=torch.bfloat16))
        torch.nn.init.eye_(block.attn.wo.weight)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = transformer(tokens.bfloat16())
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.full_like(found, 1.016), atol=1e-4)
