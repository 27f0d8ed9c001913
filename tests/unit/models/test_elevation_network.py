"""The elevation network: construction, signs, the refusal of foreign weights."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffsplat.models.elevation_network import ElevationConfig, ElevationEstimator

SMALL = ElevationConfig(width=32, depth=1, heads=2, grid=3, registers=2, head_width=16, classes=5)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return ElevationEstimator(SMALL).released_state_dict()


def test_the_configuration_is_read_from_the_weights(state: dict[str, Tensor]):
    assert ElevationConfig.of_state_dict(state, heads=2) == SMALL
    assert ElevationConfig.of_state_dict(state).heads == 1
    with torch.device("meta"):
        full = ElevationEstimator().released_state_dict()
    assert ElevationConfig.of_state_dict(full) == ElevationConfig()


@torch.no_grad()
def test_degrees_come_from_the_likeliest_interval(state: dict[str, Tensor]):
    chosen = dict(state)
    chosen["cls_head.2.weight"] = torch.zeros_like(state["cls_head.2.weight"])
    chosen["cls_head.2.bias"] = torch.tensor([0.0, 0.0, 3.0, 0.0, 0.0])
    chosen["offset_head.2.weight"] = torch.zeros_like(state["offset_head.2.weight"])
    chosen["offset_head.2.bias"] = torch.tensor([0.75])
    chosen["lower_bounds"] = torch.tensor([-40.0, -30.0, -20.0, -10.0, 0.0])
    estimator = ElevationEstimator.from_state_dict(chosen, SMALL)
    images = torch.rand(3, 3, 50, 40)
    assert torch.equal(estimator(images), torch.full((3,), -19.25))
    assert torch.equal(estimator.degrees_above_horizon(images), torch.full((3,), 19.25))


@torch.no_grad()
def test_images_of_any_size_and_half_precision(state: dict[str, Tensor]):
    estimator = ElevationEstimator.from_state_dict(state, SMALL)
    # Constant pictures look the same at every size.
    grey = estimator.classify(torch.full((1, 3, 224, 224), 0.25))[0]
    assert torch.allclose(estimator.classify(torch.full((1, 3, 61, 500), 0.25))[0], grey, atol=1e-5)
    half = ElevationEstimator.from_state_dict({name: tensor.half() for name, tensor in state.items()}, SMALL)
    assert torch.allclose(half.classify(torch.full((1, 3, 9, 9), 0.25))[0].float(), grey, atol=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"backbone.norm.weight": None},
            "1 weights are missing and 0 unknown, such as backbone.norm.weight",
        ),
        ({"lower_bounds": None}, "lack lower_bounds"),
        ({"head.weight": torch.zeros(1)}, "0 weights are missing and 1 unknown, such as head.weight"),
        ({"backbone.norm.bias": torch.zeros(31)}, r"norm.bias has the shape \(31,\), expected \(32,\)"),
        ({"backbone.pos_embed": torch.zeros(1, 12, 32)}, "11 position embeddings"),
        ({"backbone.patch_embed.proj.weight": torch.zeros(32)}, "expected 4 dimensions"),
    ],
)
def test_foreign_weights_are_refused(
    state: dict[str, Tensor], change: dict[str, Tensor | None], message: str
):
    changed = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        ElevationEstimator.from_state_dict(changed)


def test_bad_sizes_and_images_are_refused(state: dict[str, Tensor]):
    with pytest.raises(ValueError, match="5 attention heads cannot share 32"):
        replace(SMALL, heads=5)
    with pytest.raises(ValueError, match="patches of 15 pixels"):
        replace(SMALL, patch=15)
    with pytest.raises(ValueError, match="depth is 0"):
        replace(SMALL, depth=0)
    estimator = ElevationEstimator.from_state_dict(state, SMALL)
    with pytest.raises(ValueError, match=r"\(3, 8, 8\), expected \[B, 3, H, W\]"):
        estimator(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match="floating-point"):
        estimator(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
