"""Diffusion objectives against what their definitions imply."""

from math import erf, log, sqrt
from typing import get_args

import pytest
import torch
from torch import Tensor

from diffsplat.pretrained.release_catalogue import Prediction
from diffsplat.training.diffusion_objective import (
    InverseLevelWeight,
    LevelSource,
    LogitNormalLevels,
    MinSnrWeight,
    NoiseLevels,
    Objective,
    ShiftedFlowSteps,
    UniformTimesteps,
)

SHAPE = (3, 2, 4, 5, 5)
DDPM = UniformTimesteps.from_scheduler(
    {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
)
LEVELS = {
    "epsilon": DDPM.at(torch.tensor([0, 500, 999])),
    "v_prediction": DDPM.at(torch.tensor([0, 500, 999])),
    "flow": LogitNormalLevels().at_level(torch.tensor([0.1, 0.5, 1.0])),
    "latents": LogitNormalLevels().at_level(torch.tensor([0.1, 0.5, 1.0])),
}


@pytest.fixture
def drawn() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(SHAPE, dtype=torch.float64), torch.randn(SHAPE, dtype=torch.float64)


def normal_share(value: float) -> float:
    """Share of a standard normal distribution below a value."""
    return 0.5 * (1 + erf(value / sqrt(2)))


@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_the_target_leads_back_to_the_latents(drawn: tuple[Tensor, Tensor], prediction: Prediction):
    latents, noise = drawn
    objective, levels = Objective(prediction, DDPM), LEVELS[prediction]
    target = objective.target(latents, noise, levels)
    clean = objective.clean_latents(target, levels.noisy(latents, noise), levels)
    torch.testing.assert_close(clean, latents, rtol=1e-4, atol=1e-4)
    assert not objective.losses(target, latents, noise, levels).any()


@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_every_object_has_its_own_mean_loss(drawn: tuple[Tensor, Tensor], prediction: Prediction):
    latents, noise = drawn
    objective, levels = Objective(prediction, DDPM), LEVELS[prediction]
    off = torch.tensor([1.0, 2.0, 3.0])[:, None, None, None, None]
    losses = objective.losses(objective.target(latents, noise, levels) + off, latents, noise, levels)
    assert losses.tolist() == pytest.approx([1, 4, 9])


def test_loss_of_the_embedded_model(drawn: tuple[Tensor, Tensor]):
    """Squared velocity error, where levels below 0.25 count as that (DiffusionStage before it had objectives)."""
    latents, predicted = drawn
    level = torch.tensor([0.1, 0.3, 0.9])
    objective = Objective("latents", LogitNormalLevels(1.8, 1.6), InverseLevelWeight(0.25))
    losses = objective.losses(
        predicted, latents, torch.zeros_like(latents), LogitNormalLevels().at_level(level)
    )
    for index, divisor in enumerate((0.25, 0.3, 0.9)):
        expected = ((predicted[index] - latents[index]) / divisor).square().mean()
        assert float(losses[index]) == pytest.approx(float(expected))


def test_minimum_snr_of_several_objects():
    """An error of the latents weighs min(SNR, 5) whatever is predicted (Hang et al. 2023, section 3.4)."""
    levels = DDPM.at(torch.tensor([0, 500, 999]))
    expected = levels.snr.clamp(max=5)
    latents, noise = torch.zeros(SHAPE), torch.zeros(SHAPE)
    for prediction in ("epsilon", "v_prediction"):
        objective = Objective(prediction, DDPM, MinSnrWeight(5.0))
        predicted = torch.ones(SHAPE)
        clean = objective.clean_latents(predicted, levels.noisy(latents, noise), levels)
        errors = clean.square().flatten(1).mean(dim=1)
        losses = objective.losses(predicted, latents, noise, levels)
        torch.testing.assert_close(losses, expected * errors, rtol=1e-4, atol=1e-6)


def test_uniform_timesteps():
    torch.manual_seed(0)
    timesteps = DDPM.draw(50_000).timestep
    assert (int(timesteps.min()), int(timesteps.max())) == (0, 999)
    counts = torch.bincount(timesteps // 100, minlength=10) / len(timesteps)
    assert counts.tolist() == pytest.approx([0.1] * 10, abs=0.006)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.5, 2.0)])
def test_shifted_flow_steps(mean: float, deviation: float):
    torch.manual_seed(0)
    levels = ShiftedFlowSteps(3.0, mean=mean, deviation=deviation).draw(50_000)
    assert float(levels.noise.max()) <= 1.0
    torch.testing.assert_close(levels.timestep, 1000 * levels.noise)
    for sigma in (0.3, 0.75, 0.95):
        # sigma = 3 s / (1 + 2 s) with s = 1 - u, u = sigmoid(n): sigma is above a value where u is below another.
        u = 1 - sigma / (3 - 2 * sigma)
        above = normal_share((log(u / (1 - u)) - mean) / deviation)
        assert float((levels.noise > sigma).float().mean()) == pytest.approx(above, abs=0.01)


def test_logit_normal_levels():
    torch.manual_seed(0)
    levels = LogitNormalLevels(1.8, 1.6, greatest=0.82).draw(50_000)
    assert float(levels.noise.max()) < 0.82
    for level in (0.2, 0.6, 0.8):
        share = level / 0.82
        below = normal_share((log(share / (1 - share)) - 1.8) / 1.6)
        assert float((levels.noise < level).float().mean()) == pytest.approx(below, abs=0.01)


@pytest.mark.parametrize(
    "source", [DDPM, ShiftedFlowSteps(), LogitNormalLevels()], ids=lambda s: type(s).__name__
)
def test_draws_follow_torch_s_seed(source: LevelSource):
    def drawn(seed: int) -> NoiseLevels:
        torch.manual_seed(seed)
        return source.draw(8)

    assert torch.equal(drawn(1).timestep, drawn(1).timestep)
    assert not torch.equal(drawn(1).timestep, drawn(2).timestep)


@pytest.mark.parametrize(
    "levels",
    [
        UniformTimesteps(torch.linspace(0.999, 0.01, 1000)),
        ShiftedFlowSteps(),
        LogitNormalLevels(1.8, 1.6, 0.88),
    ],
    ids=["uniform", "shifted", "logit-normal"],
)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_share_of_the_drawn_levels_lies_below_its_quantile(levels: LevelSource, share: float) -> None:
    torch.manual_seed(0)
    bound = levels.at_quantile(torch.tensor([share])).noise
    below = (levels.draw(40_000).noise < bound).float().mean()
    assert float(below) == pytest.approx(share, abs=0.01)
