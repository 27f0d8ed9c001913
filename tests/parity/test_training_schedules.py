"""Recorded learning rates, averages, optimiser steps and noise schedules of the original's trainers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffsplat.training.diffusion_objective import ShiftedFlowSteps, UniformTimesteps, rendering_weights
from diffsplat.training.ema import Ema
from diffsplat.training.optimizers import Optimizers
from diffsplat.training.trainer_config import EmaConfig, OptimConfig
from support.training_recordings import TrainingRecordings, check_numbers, check_tensor

EXACT = 1e-6
ADAMW = {
    "gsrecon_gsvae": OptimConfig(lr=4e-4, betas=(0.9, 0.95), weight_decay=0.05, decayed="all"),
    "gsdiff": OptimConfig(lr=1e-4, betas=(0.9, 0.999), weight_decay=0.01, decayed="all"),
    "elevest": OptimConfig(lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, decayed="all"),
}


@pytest.fixture(scope="module")
def recorded(training: TrainingRecordings) -> dict[str, Any]:
    return training.json("schedules.json")


@pytest.mark.parametrize("size", ["small", "as_configured"])
@pytest.mark.parametrize(("schedule", "name"), [("cosine", "cosine_warmup"), ("constant", "constant_warmup")])
def test_learning_rates(recorded: dict[str, Any], size: str, schedule: Any, name: str):
    facts = recorded[size]
    config = OptimConfig(
        lr=1.0, warmup_steps=facts["num_warmup_steps"], schedule=schedule, warmup_from_zero=True
    )
    for step, multiplier in facts[name].items():
        assert config.learning_rate(int(step), facts["total_steps"]) == pytest.approx(multiplier, abs=EXACT)


def test_ema_decays(recorded: dict[str, Any]):
    configured = recorded["ema"]["configured"]
    ema = Ema({}, EmaConfig(decay=configured["decay"], power=configured["power"]))
    for update, decay in recorded["ema"]["decay"].items():
        if int(update) == 0:
            continue
        ema.updates = int(update) - 1
        assert ema.decay == pytest.approx(decay, abs=EXACT), update


def test_ema_of_parameters(training: TrainingRecordings):
    tensors = training.tensors("schedules")
    parameters, shadows = tensors["ema.parameter_after_update"], tensors["ema.shadow"]
    live = parameters[0].clone()
    ema = Ema({"weight": live}, EmaConfig(decay=0.9999, power=0.75))
    for parameter, shadow in zip(parameters[1:], shadows[1:], strict=True):
        live.copy_(parameter)
        ema.update()
        check_tensor("average", ema.state()["weight"], shadow, EXACT)


@pytest.mark.parametrize("name", ADAMW)
def test_adamw(training: TrainingRecordings, name: str):
    tensors = training.tensors("schedules")
    gradients, trajectory = tensors[f"adamw.{name}.gradient"], tensors[f"adamw.{name}.parameter"]
    network = nn.Module()
    network.weight = nn.Parameter(trajectory[0].clone())
    optimizers = Optimizers(network, ADAMW[name])
    for gradient, after in zip(gradients, trajectory[1:], strict=True):
        network.weight.grad = gradient.clone()
        optimizers.step(ADAMW[name].lr)
        check_tensor("parameter", network.weight, after, EXACT)


def test_flow_steps(recorded: dict[str, Any]):
    facts = recorded["flow_matching"]
    levels = ShiftedFlowSteps(shift=facts["shift"]).at_index(torch.tensor(facts["index"]))
    check_numbers("sigma", levels.noise, facts["sigma"], EXACT)
    check_numbers("timestep", levels.timestep, facts["timestep"], EXACT)
    assert torch.equal(levels.signal, 1 - levels.noise)


@pytest.mark.parametrize("name", ["sd", "pixart"])
def test_signal_to_noise_ratios(recorded: dict[str, Any], name: str):
    facts = recorded["ddpm"][name]
    # It is asked for too late by the original, so it must have no effect.
    source = UniformTimesteps.from_scheduler({**facts, "rescale_betas_zero_snr": True})
    levels = source.at(torch.tensor(facts["timestep"]))
    check_numbers("alphas", levels.signal.square(), facts["alphas_cumprod"], EXACT)
    check_numbers("snr", levels.snr, facts["snr"], EXACT)
    assert rendering_weights(levels, 1.0).max() == 1.0
    assert_smaller(rendering_weights(levels, 1.0), levels.snr)


def assert_smaller(weights: Tensor, ratios: Tensor) -> None:
    low = ratios < 1
    assert low.any()
    torch.testing.assert_close(weights[low], ratios[low])
