"""A step at random noise draws levels and noise as its objective says."""

import pytest
import torch
from torch import Tensor

from diffsplat.models.text.text_condition import TextCondition
from diffsplat.pipelines.guidance import Conditions
from diffsplat.training.denoiser_loss import DenoiserLoss
from diffsplat.training.diffusion_objective import InverseLevelWeight, LogitNormalLevels, Objective

LATENTS = torch.zeros(64, 2, 3, 4, 4)
CONDITIONS = Conditions(torch.zeros(64, 2, 6, 4, 4), TextCondition(torch.zeros(64, 1, 1)))
OBJECTIVE = Objective("latents", LogitNormalLevels(0.0, 1.0), InverseLevelWeight(0.01))


def identity(noisy: Tensor, _timestep: Tensor, _conditions: Conditions) -> Tensor:
    return noisy


def test_noise_and_levels_are_drawn():
    """Zero latents become level * noise, whose square over the squared level is that of a standard normal."""
    torch.manual_seed(0)
    losses = DenoiserLoss(identity, OBJECTIVE)(LATENTS, CONDITIONS)
    assert losses.total.shape == (64,)
    assert float(losses.total.mean()) == pytest.approx(1.0, abs=0.1)
    assert losses.terms.keys() == {"diffusion"}


def test_a_seed_gives_the_same_step_again():
    def step(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return DenoiserLoss(identity, OBJECTIVE, diffusion_weight=2.0)(LATENTS, CONDITIONS).total

    assert torch.equal(step(1), step(1))
    assert not torch.equal(step(1), step(2))
