"""The moving average of weights against closed forms and diffusers."""

import math
from typing import Literal

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from diffsplat.training.ema import Ema, rounded_at_random
from diffsplat.training.trainer_config import EmaConfig


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


def test_the_average_of_half_precision_is_kept_in_fp32() -> None:
    """Steps of a thousandth are lost in bfloat16, which has eight bits."""
    weight = torch.ones(4, dtype=torch.bfloat16)
    ema = Ema({"w": weight}, EmaConfig(decay=0.999, power=100.0))
    ema.update()
    weight.fill_(1.5)
    expected = 1.0
    for _ in range(50):
        ema.update()
        expected += 0.001 * (1.5 - expected)
    average = ema.state()["w"]
    assert average.dtype == torch.float32
    torch.testing.assert_close(average, torch.full((4,), expected), rtol=1e-5, atol=0)
    with ema.swapped():
        assert weight.dtype == torch.bfloat16
        torch.testing.assert_close(weight.float(), average, rtol=2**-8, atol=0)
    assert weight.tolist() == [1.5] * 4


HALVES = [("fp16", torch.float16), ("bf16", torch.bfloat16)]


@pytest.mark.parametrize(("precision", "dtype"), HALVES)
def test_averages_in_half_precision_follow_small_updates_on_average(
    precision: Literal["fp16", "bf16"], dtype: torch.dtype
) -> None:
    """A step of 5e-5 is a hundredth of bfloat16's spacing at 1: rounded to the nearest, none would count."""
    weight = torch.ones(20_000)
    ema = Ema({"w": weight}, EmaConfig(decay=0.9999, power=100.0, precision=precision))
    weight.fill_(1.5)
    ema.update()  # forgets the initial weights
    ema.load_state({"w": torch.ones(20_000)}, 1)
    for _ in range(300):
        ema.update()
    average = ema.state()["w"]
    assert average.dtype == dtype
    exact = 1.5 - 0.5 * 0.9999**300
    error = average.double() - exact
    deviation = math.sqrt(torch.finfo(dtype).eps * (exact - 1))  # of a walk in steps of the spacing
    assert abs(error.mean().item()) < 5 * deviation / math.sqrt(20_000)
    assert error.std().item() < 1.1 * deviation


def test_averages_in_half_precision_depend_on_the_parameters_alone() -> None:
    """Processes of a run draw other noise, and so does a continued run up to the next checkpoint."""
    averages: list[Tensor] = []
    for seed in range(2):
        weights = torch.linspace(-1, 1, 999)
        ema = Ema({"w": weights}, EmaConfig(decay=0.9, precision="bf16"))
        torch.manual_seed(seed)
        for _ in range(3):
            weights.mul_(1.001)
            ema.update()
        averages.append(ema.state()["w"])
    assert torch.equal(averages[0], averages[1])


@pytest.mark.parametrize(("_precision", "dtype"), HALVES)
def test_numbers_are_rounded_to_a_neighbour_as_often_as_it_is_near(
    _precision: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    smallest = torch.finfo(dtype).smallest_normal * torch.tensor([0.3, 1.7])
    values = torch.cat([torch.randn(500) * 10 ** torch.randn(500).clamp(-4, 4), smallest.clamp_min(1e-9)])
    below, above = neighbours(values, dtype)
    generator = torch.Generator().manual_seed(1)
    drawn = torch.stack([rounded_at_random(values, dtype, generator).float() for _ in range(2_000)])
    assert bool(((drawn == below) | (drawn == above)).all())
    share = (drawn == above).double().mean(0)
    expected = (values.double() - below) / (above.double() - below)
    assert (share - expected).abs().max() < 5 * 0.5 / math.sqrt(2_000)


@pytest.mark.parametrize(("_precision", "dtype"), HALVES)
def test_numbers_of_half_precision_stay_as_they_are(_precision: str, dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, 1.0, -2.5, 0.1]).to(dtype).float()
    for seed in range(50):
        drawn = rounded_at_random(values, dtype, torch.Generator().manual_seed(seed))
        assert torch.equal(drawn.float(), values)


def neighbours(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The nearest numbers of a type below and above, found by counting its bit patterns."""
    nearest = values.to(dtype)
    beyond = nearest.float() > values
    magnitude_grows = (nearest > 0) != beyond  # away from zero, the pattern of the next number is one more
    other = (nearest.view(torch.int16) + torch.where(magnitude_grows, 1, -1).short()).view(dtype)
    pair = torch.stack([nearest.float(), other.float()])
    return pair.amin(0), pair.amax(0)
