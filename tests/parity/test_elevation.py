"""The elevation network against the recorded one, and its names at full size."""

import pytest
import torch
from torch import Tensor

from diffsplat.models.elevation_network import ElevationConfig, ElevationEstimator
from support.recordings import Recordings, relative_error


@pytest.fixture(scope="module")
def weights(recordings: Recordings) -> dict[str, Tensor]:
    return recordings.tensors("elevest_weights")


@pytest.fixture(scope="module")
def recorded(recordings: Recordings) -> dict[str, Tensor]:
    return recordings.tensors("elevest_io")


@torch.no_grad()
def test_the_recorded_elevations(weights: dict[str, Tensor], recorded: dict[str, Tensor]):
    width = weights["backbone.norm.weight"].numel()
    # No tensor's shape tells the number of attention heads, so the recording has to.
    computed = [
        ElevationEstimator.from_state_dict(weights, ElevationConfig.of_state_dict(weights, heads=heads))(
            recorded["images"]
        )
        for heads in range(1, width + 1)
        if width % heads == 0
    ]
    # The intervals' bounds are large: the degrees themselves say more than their relative error.
    best = min(computed, key=lambda degrees: relative_error(degrees, recorded["elevation_deg"]))
    assert relative_error(best, recorded["elevation_deg"]) < 1e-4
    assert float((best - recorded["elevation_deg"]).abs().max()) < 1e-3


def test_weights_are_kept_without_a_copy_and_given_back(weights: dict[str, Tensor]):
    estimator = ElevationEstimator.from_state_dict(weights)
    assert torch.equal(estimator.lower_bounds, weights["lower_bounds"])
    storages = {tensor.untyped_storage().data_ptr() for tensor in weights.values()}
    assert {tensor.untyped_storage().data_ptr() for tensor in estimator.state_dict().values()} == storages
    given_back = estimator.released_state_dict()
    assert given_back.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(given_back[name], tensor), name


def test_names_and_size_of_the_full_network(weights: dict[str, Tensor]):
    with torch.device("meta"):
        estimator = ElevationEstimator(ElevationConfig())
    small = {name for name in weights if not name.startswith("backbone.blocks.")}
    inner = {name.removeprefix("backbone.blocks.0.") for name in weights if "blocks.0." in name}
    wanted = small | {f"backbone.blocks.{index}.{name}" for index in range(12) for name in inner}
    shapes = {name: tuple(tensor.shape) for name, tensor in estimator.released_state_dict().items()}
    assert shapes.keys() == wanted
    assert shapes["backbone.blocks.11.attn.qkv.weight"] == (2304, 768)
    assert shapes["backbone.pos_embed"] == (1, 1370, 768)
    assert shapes["cls_head.2.weight"] == (25, 768)
    # 86 M is what DINOv2's authors count for the ViT-B/14 with registers; the heads come on top.
    backbone = sum(parameter.numel() for parameter in estimator.backbone.parameters())
    assert backbone == pytest.approx(86e6, rel=0.02)
    heads = 2 * (768 * 768 + 768) + 25 * (768 + 1) + (768 + 1)
    assert sum(parameter.numel() for parameter in estimator.parameters()) == backbone + heads
