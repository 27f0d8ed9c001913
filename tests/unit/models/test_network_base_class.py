"""Networks that are stored with the arguments of their constructor."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from diffsplat.models.network_base_class import BaseNetwork, keep_arguments


class Small(BaseNetwork):
    """Two layers and a buffer."""

    @keep_arguments
    def __init__(self, width: int, depth: int = 2, *, name: str = "small") -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.register_buffer("counts", torch.arange(3))


class Wide(Small):
    """One whose constructor takes other arguments than its parent's."""

    @keep_arguments
    def __init__(self, factor: int) -> None:
        super().__init__(4 * factor)


@pytest.mark.parametrize("network", [Small(3), Small(3, 2), Small(depth=2, width=3)])
def test_the_arguments_are_kept_whichever_way_they_were_given(network: Small):
    assert network.config == {"width": 3, "depth": 2, "name": "small"}


def test_the_arguments_are_those_of_the_class_itself():
    assert Wide(2).config == {"factor": 2}


def test_a_folder_gives_the_same_network(tmp_path: Path):
    network = Small(3, name="other")
    network.save_pretrained(tmp_path / "new" / "folder")
    again = Small.from_pretrained(tmp_path / "new" / "folder")
    assert again.config == network.config
    assert not again.training
    assert again.device.type == "cpu"
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in network.state_dict().items())


def test_half_precision_is_only_in_the_file(tmp_path: Path):
    network = Small(3)
    network.save_pretrained(tmp_path, half=True)
    again = Small.from_pretrained(tmp_path)
    assert network.dtype == again.dtype == torch.float32
    assert again.get_buffer("counts").dtype == torch.int64
    for name, tensor in network.named_parameters():
        assert torch.equal(tensor.half().float(), again.get_parameter(name))


def test_weights_are_taken_over_in_place(tmp_path: Path):
    source, target = Small(3), Small(3)
    source.save_pretrained(tmp_path)
    optimised = list(target.parameters())
    target.load_weights(tmp_path)
    assert all(map(torch.equal, source.parameters(), optimised))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Small(3, 3), "0 weights are missing and 2 unknown, such as layers.2.bias"),
        (Small(3, 1), "2 weights are missing and 0 unknown, such as layers.1.bias"),
        (Small(5), r"layers.0.weight in .* has the shape \(5, 5\), expected \(3, 3\)"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path: Path, other: Small, message: str):
    other.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(Small(3).config))
    with pytest.raises(ValueError, match=message):
        Small.from_pretrained(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        Small.from_pretrained(tmp_path)
