"""Training of the reconstructor on rendered views."""

from dataclasses import dataclass
from pathlib import Path

import torch

from diffsplat.core import Views
from diffsplat.models.splat_reconstructor import GSRecon, Parametrization
from diffsplat.pretrained.network_folders import save_half
from diffsplat.render import render
from diffsplat.training.losses import rendering_loss
from diffsplat.training.stages.stage import Losses, Report, Stage
from diffsplat.training.stages.stage_reports import INPUT_VIEWS, report_rendering


@dataclass(frozen=True)
class ReconstructionConfig:
    """The reconstructor; see :class:`~diffsplat.models.splat_reconstructor.GSRecon`."""

    dim: int = 192
    blocks: int = 6
    heads: int = 3
    patch: int = 16
    parametrization: Parametrization = "residual"


class ReconstructionStage(Stage):
    """Four views in, rendering loss on those and on novel views (DiffSplat, ICLR 2025, section 3.1)."""

    def __init__(self, config: ReconstructionConfig) -> None:
        super().__init__()
        self.reconstructor = GSRecon(
            dim=config.dim,
            blocks=config.blocks,
            heads=config.heads,
            patch=config.patch,
            parametrization=config.parametrization,
            pixel_grid="center",
        )

    def trainable(self) -> GSRecon:
        """The reconstructor."""
        return self.reconstructor

    def forward(self, batch: Views) -> Losses:
        """Rendering loss; the first four of the views are the inputs."""
        inputs = batch.take(slice(0, INPUT_VIEWS))
        splats = self.reconstructor(inputs).to_splats(inputs.cameras)
        total, parts = rendering_loss(render(splats, batch.cameras, normals=False), batch)
        return Losses(total, parts)

    @torch.no_grad()
    def evaluate(self, batch: Views) -> Report:
        """PSNR of input and novel views, and a picture of truth over rendering."""
        inputs = batch.take(slice(0, INPUT_VIEWS))
        splats = self.reconstructor(inputs).to_splats(inputs.cameras)
        return report_rendering(render(splats, batch.cameras, normals=False), batch)

    def save_pretrained(self, directory: Path) -> None:
        """Write the reconstructor."""
        save_half(self.reconstructor, directory)
