"""A solver that takes a guided model from noise to clean latents in a few steps fitted to that model."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffsplat.errors import require
from diffsplat.models.network_base_class import BaseNetwork, keep_arguments
from diffsplat.models.rays_and_noise_levels import TIMESTEPS


class FewStepSolver(BaseNetwork):
    """Coefficients of a few steps, fitted to what a model makes in many (Shaul et al. 2024, "Bespoke Non-Stationary
    Solvers", section 3).

    Step ``i`` leads from noise level ``t_i`` to ``t_{i+1}``, the last to 0. It heads for a mixture of all clean
    latents predicted so far, each guided anew::

        target_i = sum over j <= i of mixture[i, j] * (without_j + guidance[i, j] * (with_text_j - without_j))
        x_{i+1}  = keep[i] * r * x_i + (1 - r) * target_i        r = t_{i+1} / t_i

    The untrained solver takes Euler's steps.

    Args:
        levels: noise levels that its steps start at, falling from 1.
        guidance: scale of each step.

    Raises:
        ValueError: for levels that do not fall from 1 and stay above 0, or another number of scales.
    """

    @keep_arguments
    def __init__(self, levels: Sequence[float], guidance: Sequence[float]) -> None:
        super().__init__()
        falling = all(a > b for a, b in zip(levels, [*levels[1:], 0.0], strict=True))
        require(bool(levels) and levels[0] == 1 and falling, "levels", tuple(levels), "levels falling from 1")
        steps = len(levels)
        require(len(guidance) == steps, "guidance", tuple(guidance), f"{steps} scales, one a step")
        self.steps = steps
        self.level_logits = nn.Parameter(torch.tensor(levels[1:]).logit())
        self.keep = nn.Parameter(torch.ones(steps))
        self.mixture = nn.Parameter(torch.eye(steps))
        self.guidance = nn.Parameter(torch.tensor(guidance).expand(steps, steps).clone())

    def levels(self) -> Tensor:
        """``[steps + 1]`` noise levels of the starts of its steps and of the end, from 1 to 0."""
        ends = self.level_logits.new_tensor([1.0, 0.0])
        return torch.cat([ends[:1], self.level_logits.sigmoid(), ends[1:]])


class FewStepScheduler:
    """The steps of a :class:`FewStepSolver` as a scheduler, for one denoising loop.

    Its prediction is ``[2, B, ...]``: clean latents without the text, then with it.
    """

    def __init__(self, solver: FewStepSolver) -> None:
        self.config = {"_class_name": type(self).__name__, **solver.config}
        self.solver = solver
        self.timesteps = torch.empty(0)
        self._levels = torch.empty(0)
        self._predictions: list[Tensor] = []

    def set_timesteps(self, steps: int, device: torch.device | str | None = None) -> None:
        """Place the steps.

        Raises:
            ValueError: for another number of them than the solver has.
        """
        require(steps == self.solver.steps, "steps", steps, f"the {self.solver.steps} of the few-step solver")
        self._levels = self.solver.levels().to(device)
        self.timesteps = self._levels[:-1] * TIMESTEPS
        self._predictions = []

    def step(self, prediction: Tensor, _timestep: Tensor, latents: Tensor, **_options: Any) -> tuple[Tensor]:
        """Latents ``[B, ...]`` after the next step; to be called once for each of :attr:`timesteps`, in their order."""
        number = len(self._predictions)
        self._predictions.append(prediction)
        mixture, guidance = (
            table[number].to(latents.device) for table in (self.solver.mixture, self.solver.guidance)
        )
        target = sum(
            mixture[place] * torch.lerp(without, with_text, guidance[place])
            for place, (without, with_text) in enumerate(self._predictions)
        )
        share = self._levels[number + 1] / self._levels[number]
        kept = self.solver.keep[number].to(latents.device) * share
        return (kept * latents + (1 - share) * target,)
