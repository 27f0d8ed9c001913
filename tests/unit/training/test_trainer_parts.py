"""EMA, schedule, parameter groups, prefetching and batches against closed forms."""

import math
import threading
from dataclasses import dataclass

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import nn

from diffsplat.training.batch_prefetch import Prefetcher
from diffsplat.training.batch_tensors import batch_size, to_device
from diffsplat.training.ema import Ema
from diffsplat.training.learning_rate import learning_rate
from diffsplat.training.optimizers import Optimizers, split_parameters
from diffsplat.training.trainer_config import EmaConfig, OptimConfig, TrainerConfig


def test_ema_of_a_ramp_is_the_ramp_less_its_lag() -> None:
    decay, count = 0.9, 40
    parameter = torch.zeros(3, dtype=torch.float64)
    ema = Ema({"w": parameter}, EmaConfig(decay=decay, power=1000.0))
    for value in range(1, count + 1):
        parameter.fill_(value)
        ema.update()
    expected = count - decay / (1 - decay) * (1 - decay ** (count - 1))
    assert ema.state()["w"].tolist() == pytest.approx([expected] * 3, rel=1e-12)


def test_ema_warm_up_agrees_with_diffusers() -> None:
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(5, dtype=torch.float64))
    ema = Ema({"w": parameter}, EmaConfig(decay=0.95, power=0.75))
    other = EMAModel([parameter], decay=0.95, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    for _ in range(100):
        parameter.data = torch.randn(5, dtype=torch.float64)
        ema.update()
        other.step([parameter])
    torch.testing.assert_close(ema.state()["w"], other.shadow_params[0], rtol=1e-12, atol=1e-12)


def test_ema_is_swapped_in_and_out_even_after_an_error() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    ema = Ema({"w": parameter}, EmaConfig(decay=0.5))
    parameter.data.fill_(3.0)
    seen: list[float] = []

    def fail() -> None:
        with ema.swapped():
            seen.append(parameter.item())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (seen, parameter.item()) == ([1.0], 3.0)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (40, 0.75), (55, 0.5), (70, 0.25), (100, 0.0), (130, 0.0)],
)
def test_cosine_schedule_has_its_known_values(step: int, expected: float) -> None:
    config = OptimConfig(lr=2e-3, warmup_steps=10, schedule="cosine")
    assert learning_rate(config, step, 100) == pytest.approx(2e-3 * expected, abs=1e-12)


def test_cosine_schedule_ends_at_its_floor_and_the_constant_one_stays() -> None:
    floor = OptimConfig(lr=1.0, warmup_steps=0, final_lr=0.1)
    assert learning_rate(floor, 50, 100) == pytest.approx(0.55)
    assert learning_rate(floor, 100, 100) == pytest.approx(0.1)
    constant = OptimConfig(lr=1.0, warmup_steps=4, schedule="constant")
    assert [learning_rate(constant, step, 100) for step in (0, 3, 4, 99)] == [0.25, 1.0, 1.0, 1.0]


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


def test_optimizer_state_of_another_network_is_refused() -> None:
    network = nn.Linear(3, 3)
    with pytest.raises(ValueError, match=r"optimiser state of other\.weight"):
        Optimizers(network, OptimConfig()).load_state({"other.weight|step": torch.tensor(1.0)})


def test_network_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="no trainable parameters"):
        Optimizers(nn.Linear(2, 2).requires_grad_(False), OptimConfig())


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_prefetcher_gives_every_item_once_in_order_and_runs_no_further_than_asked(ahead: int) -> None:
    asked: list[int] = []

    def load(index: int) -> int:
        asked.append(index)
        return index * index

    with Prefetcher(load, 3, 9, ahead) as items:
        taken = []
        for index in range(3, 9):
            taken.append(items.take())
            assert max(asked) <= index + ahead
    assert taken == [index * index for index in range(3, 9)]
    assert asked == list(range(3, 9))
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_prefetcher_raises_the_source_s_error_at_its_item() -> None:
    def load(index: int) -> int:
        if index == 1:
            raise OSError("shard 7 is gone")
        return index

    with Prefetcher(load, 0, 5, 2) as items:
        assert items.take() == 0
        with pytest.raises(OSError, match="shard 7"):
            items.take()


@dataclass(frozen=True)
class _Batch:
    name: str
    parts: dict[str, tuple[torch.Tensor, ...]]


def test_batches_of_any_type_move_and_are_counted() -> None:
    batch = _Batch("x", {"a": (torch.zeros(5, 2), torch.zeros(5))})
    assert batch_size(batch) == 5
    assert batch_size("x") == 1
    moved = to_device(batch, torch.device("meta"))
    assert [t.device.type for t in moved.parts["a"]] == ["meta", "meta"]
    assert moved.name == "x"
    assert to_device(batch, torch.device("cpu")) is batch


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimConfig(lr=-1.0), r"optim\.lr is -1\.0, expected a number above 0"),
        (lambda: OptimConfig(lr=math.nan), r"optim\.lr is nan"),
        (lambda: OptimConfig(betas=(0.9, 1.0)), r"optim\.betas"),
        (lambda: OptimConfig(clip_norm=0.0), r"optim\.clip_norm"),
        (lambda: EmaConfig(decay=1.0), r"ema\.decay is 1\.0"),
        (lambda: TrainerConfig(steps=0), "steps is 0, expected at least 1"),
        (lambda: TrainerConfig(seed=-1), "seed is -1"),
        (lambda: TrainerConfig(max_minutes=0.0), r"max_minutes is 0\.0"),
    ],
)
def test_configuration_refuses_nonsense(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
