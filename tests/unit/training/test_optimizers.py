"""Parameter groups, weight decay and state of the optimizers."""

import pytest
import torch
from torch import nn

from diffsplat.training.optimizers import Optimizers, split_parameters
from diffsplat.training.trainer_config import OptimConfig


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.stem = nn.Conv2d(3, 4, 3)
        self.hidden = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.head = nn.Linear(6, 2)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_parameter_groups_partition_the_trainable_parameters(name: str) -> None:
    network = _Network()
    groups = split_parameters(network, OptimConfig(name=name))
    names = [key for group in groups.values() for key in group]
    assert sorted(names) == sorted(n for n, p in network.named_parameters() if p.requires_grad)
    matrices = {"embed.weight", "stem.weight", "hidden.weight", "head.weight"}
    muon = {"hidden.weight"} if name == "muon" else set()
    assert set(groups["muon"]) == muon
    assert set(groups["decay"]) == matrices - muon
    assert {id(p) for p in Optimizers(network, OptimConfig(name=name)).parameters} == {
        id(p) for p in network.parameters() if p.requires_grad
    }


def test_weight_decay_acts_on_matrices_alone() -> None:
    network = nn.Linear(3, 3)
    with torch.no_grad():
        network.weight.fill_(1.0)
        network.bias.fill_(1.0)
    optimizers = Optimizers(network, OptimConfig(weight_decay=0.5))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers.step(0.1)
    torch.testing.assert_close(network.weight.detach(), torch.full((3, 3), 1 - 0.1 * 0.5))
    torch.testing.assert_close(network.bias.detach(), torch.ones(3))


def test_all_parameters_decay_where_asked_for() -> None:
    network = nn.Linear(3, 3)
    nn.init.ones_(network.bias)
    optimizers = Optimizers(network, OptimConfig(weight_decay=0.5, decayed="all"))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers.step(0.1)
    torch.testing.assert_close(network.bias.detach(), torch.full((3,), 1 - 0.1 * 0.5))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_learning_rate_factors_by_name(name: str) -> None:
    network = nn.ModuleDict({"backbone": nn.Linear(4, 4), "top": nn.Linear(4, 4)})
    config = OptimConfig(name=name, lr_factors=(("backbone", 0.1),))
    optimizers = Optimizers(network, config)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
        parameter.grad = torch.eye(4) if parameter.ndim == 2 else torch.ones(4)
    optimizers.step(1e-3)
    moved = network.state_dict()
    for kind in ("weight", "bias"):
        torch.testing.assert_close(moved[f"backbone.{kind}"], 0.1 * moved[f"top.{kind}"])
    torch.testing.assert_close(moved["top.bias"], torch.full((4,), -1e-3))


def test_optimizer_state_of_another_network_is_refused() -> None:
    network = nn.Linear(3, 3)
    with pytest.raises(ValueError, match=r"optimiser state of other\.weight"):
        Optimizers(network, OptimConfig()).load_state({"other.weight|step": torch.tensor(1.0)})


def test_network_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="no trainable parameters"):
        Optimizers(nn.Linear(2, 2).requires_grad_(False), OptimConfig())
