"""Training of a few-step solver: the coefficients of its steps, none of the networks' weights."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from diffsplat.errors import require
from diffsplat.models.few_step_solver import FewStepScheduler, FewStepSolver
from diffsplat.models.multiview_attention import set_multiview_attention
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.denoising_loop import denoise
from diffsplat.pipelines.guidance import GuidedDenoiser, Handover, constant_guidance
from diffsplat.pipelines.pipeline_interfaces import Denoiser
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.stage_interface import Losses, Report, Stage, StageConfig
from diffsplat.training.teacher_samples import SampleBatch


@dataclass(frozen=True)
class FewStepConfig(StageConfig):
    """The solver before its training.

    Args:
        levels: noise levels that its steps start at, falling from 1.
        guidance: scale of each step.
    """

    levels: tuple[float, ...] = (1.0, 0.94, 0.78, 0.45)
    guidance: tuple[float, ...] = (6.0, 6.0, 3.0, 3.0)

    def __post_init__(self) -> None:
        FewStepSolver(self.levels, self.guidance)

    def build(self, folders: StageFolders, /) -> "FewStepStage":
        """The stage.

        Raises:
            ValueError: for a teacher without guidance, which a solver could not learn.
        """
        teacher = DiffSplatPipeline.from_pretrained(folders.teacher)
        guidance = teacher.defaults.guidance
        require(guidance > 1, "the guidance scale of the teacher", guidance, "one above 1")
        return FewStepStage(FewStepSolver(self.levels, self.guidance), teacher)


class FewStepStage(Stage[FewStepSolver]):
    """Squared distance from where the teacher arrives, through all steps of the solver.

    noise --> a few steps through the frozen networks of the teacher --> latents -- compared with those of many steps
    """

    def __init__(self, solver: FewStepSolver, teacher: DiffSplatPipeline) -> None:
        super().__init__()
        self.network = solver
        self.denoisers = torch.nn.ModuleList()
        for network in (teacher.denoiser, teacher.refiner):
            if isinstance(network, torch.nn.Module):
                set_multiview_attention(network, teacher.autoencoder.views)
                self.denoisers.append(network.eval().requires_grad_(False))
        self.refined_below = teacher.defaults.refined_below

    def forward(self, batch: SampleBatch, _step: int, /) -> Losses:
        """Loss of a batch: the squared distance over that from the noise."""
        return Losses(self._error(batch))

    @torch.no_grad()
    def evaluate(self, batch: SampleBatch) -> Report:
        """The same."""
        return Report({"error": float(self._error(batch))})

    def _error(self, batch: SampleBatch) -> Tensor:
        # The solver guides; the scale that a guided denoiser would use itself has no effect.
        scale = constant_guidance(1.0, batch.noise.shape[1])
        field, *refiner = [
            GuidedDenoiser(cast(Denoiser, each), batch.conditions, scale, "latents").predictions
            for each in self.denoisers
        ]
        if refiner:
            field = Handover(field, refiner[0], self.refined_below)
        reached = denoise(field, batch.noise, FewStepScheduler(self.network), self.network.steps)
        missed, way = reached - batch.latents, batch.noise - batch.latents
        return missed.square().mean() / way.square().mean()
