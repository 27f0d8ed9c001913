"""Distillation of a guided model into one that takes a few steps without guidance."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from diffsplat.errors import require
from diffsplat.models.rays_and_noise_levels import TIMESTEPS
from diffsplat.pipelines.pipeline_interfaces import Denoiser
from diffsplat.pretrained.model_folders import find_model
from diffsplat.pretrained.network_folders import open_denoiser
from diffsplat.training.denoiser_loss import ConditionedDenoiser
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.stage_interface import Losses, Report, Stage, StageConfig
from diffsplat.training.teacher_trajectories import WindowBatch


@dataclass(frozen=True)
class DistillationConfig(StageConfig):
    """A denoiser of few steps. It starts as the teacher's, and learns what the teacher makes with its refiner.

    Args:
        least_level: errors at lower noise levels count as at this one.
    """

    least_level: float = 0.25

    def __post_init__(self) -> None:
        require(0 < self.least_level <= 1, "least_level", self.least_level, "a level above 0 and at most 1")

    def build(self, folders: StageFolders, /) -> "DistillationStage":
        """The stage."""
        return DistillationStage(self, open_denoiser(find_model(folders.teacher) / "denoiser"))


class DistillationStage(Stage):
    """The straight way through each window of the teacher's trajectories (Yan et al. 2024, "PeRFlow", section 3).

    bounds of a window -- a place between them --> network --> velocity -- compared with that of the straight line
    """

    def __init__(self, config: DistillationConfig, denoiser: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.network = denoiser.train()

    def forward(self, batch: WindowBatch, _step: int, /) -> Losses:
        """Loss of a batch, each object at a random place of a random window."""
        count, device = len(batch.latents), batch.latents.device
        chosen = torch.randint(batch.levels.shape[1] - 1, (count,), device=device)
        return Losses(self._errors(batch, chosen, torch.rand(count, device=device)).mean())

    @torch.no_grad()
    def evaluate(self, batch: WindowBatch) -> Report:
        """Error of the end of each window, crossed in one step, relative to the length of the way (squared)."""
        figures: dict[str, float] = {}
        for number in range(batch.levels.shape[1] - 1):
            start, end = batch.latents[:, number], batch.latents[:, number + 1]
            level, next_level = _wide(batch.levels[:, number]), _wide(batch.levels[:, number + 1])
            velocity = (start - self._predicted(batch, start, batch.levels[:, number])) / level
            reached = start + (next_level - level) * velocity
            figures[f"window_{number}"] = float(
                (reached - end).square().mean() / (start - end).square().mean()
            )
        return Report({"error": sum(figures.values()) / len(figures), **figures})

    def _errors(self, batch: WindowBatch, chosen: Tensor, share: Tensor) -> Tensor:
        """``[B]`` squared errors of the velocity at a share of the way through windows ``[B]``."""
        rows = torch.arange(len(chosen), device=chosen.device)
        start, end = batch.latents[rows, chosen], batch.latents[rows, chosen + 1]
        level, next_level = batch.levels[rows, chosen], batch.levels[rows, chosen + 1]
        here = level + share * (next_level - level)
        noisy = start + _wide(share) * (end - start)
        velocity = (start - end) / _wide(level - next_level)
        predicted = self._predicted(batch, noisy, here)
        errors = (predicted - (noisy - _wide(here) * velocity)).square().flatten(1).mean(dim=1)
        return errors / here.clamp_min(self.config.least_level).square()

    def _predicted(self, batch: WindowBatch, noisy: Tensor, levels: Tensor) -> Tensor:
        """Clean latents that the network predicts from noisy ones at noise levels ``[B]``."""
        denoiser = ConditionedDenoiser(cast(Denoiser, self.network))
        return denoiser(noisy, levels * TIMESTEPS, batch.conditions)


def _wide(values: Tensor) -> Tensor:
    """``[B]`` as ``[B, 1, 1, 1, 1]``."""
    return values[:, None, None, None, None]
