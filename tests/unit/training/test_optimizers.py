"""Parameter groups, weight decay and state of the optimizers."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from diffsplat.errors import InvalidInputError, MissingPackageError
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
    muon = {"stem.weight", "hidden.weight"} if name == "muon" else set()
    assert set(groups["muon"]) == muon
    assert set(groups["decay"]) == matrices - muon
    assert {id(p) for p in Optimizers(network, OptimConfig(name=name)).parameters} == {
        id(p) for p in network.parameters() if p.requires_grad
    }


def test_a_factor_of_no_trained_parameter_is_refused() -> None:
    config = OptimConfig(lr_factors=(("hidden", 0.1), ("frozen", 0.1)))
    with pytest.raises(InvalidInputError, match=r"optim\.lr_factors is 'frozen', expected .* embed\.weight"):
        Optimizers(_Network(), config)


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


def test_moments_of_eight_bits_without_their_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingPackageError, match="adamw8bit needs bitsandbytes, which is not installed"):
        Optimizers(nn.Linear(2, 2), OptimConfig(name="adamw8bit"))


def test_moments_of_eight_bits_step_like_adamw_and_go_on_from_their_state(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    networks = [nn.Sequential(nn.Linear(128, 64), nn.Linear(64, 128)) for _ in range(3)]
    for network in networks[1:]:
        network.load_state_dict(networks[0].state_dict())
    plain, small, resumed = (
        Optimizers(network, OptimConfig(name=name))
        for network, name in zip(networks, ("adamw", "adamw8bit", "adamw8bit"), strict=True)
    )

    def step(network: nn.Module, optimizers: Optimizers, number: int) -> None:
        x = torch.randn(16, 128, generator=torch.Generator().manual_seed(number))
        (network(x) - x).square().mean().backward()
        optimizers.step(1e-3)
        optimizers.zero_grad()

    start = networks[0][0].weight.detach().clone()
    for number in range(5):
        step(networks[0], plain, number)
        step(networks[1], small, number)
    moved = (networks[0][0].weight - start).norm()
    assert float((networks[1][0].weight - networks[0][0].weight).norm() / moved) < 0.1
    state = small.state()
    assert state["0.weight|state1"].dtype == torch.uint8
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "state.safetensors")
    networks[2].load_state_dict(networks[1].state_dict())
    resumed.load_state(load_file(tmp_path / "state.safetensors"))
    step(networks[1], small, 9)
    step(networks[2], resumed, 9)
    for one, other in zip(networks[1].parameters(), networks[2].parameters(), strict=True):
        assert torch.equal(one, other)
