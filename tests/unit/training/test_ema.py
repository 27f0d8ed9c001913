"""The moving average of weights against closed forms and diffusers."""

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import nn

from diffsplat.training.ema import Ema
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
