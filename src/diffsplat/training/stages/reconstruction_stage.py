"""Training of the reconstructor on rendered views."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
import tyro

from diffsplat.core import PixelGrid, Rendering, Views
from diffsplat.errors import require_at_least
from diffsplat.evaluation.held_out_view_evaluation import INPUT_VIEWS
from diffsplat.models.splat_reconstructor import GSRecon, Parametrization
from diffsplat.pretrained.release_catalogue import RECONSTRUCTOR_RELEASE
from diffsplat.training.network_initialisation import initialise_reconstructor
from diffsplat.training.released_layout_export import Release
from diffsplat.training.rendered_view_loss import RenderedViewWeights, RenderingLossOptions
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.stage_interface import Losses, OverfitGoal, Report, Stage, StageConfig
from diffsplat.training.stages.stage_reports import report_rendering

SMALL_LOSS = RenderingLossOptions(RenderedViewWeights(absolute=0.1))
"""Without a perceptual distance, whose network would take most of the time on a CPU."""


@dataclass(frozen=True)
class ReconstructionConfig(StageConfig):
    """The reconstructor, :class:`~diffsplat.models.splat_reconstructor.GSRecon`.

    Args:
        dim: width of the tokens.
        blocks: transformer blocks.
        heads: attention heads.
        patch: edge of a token's patch in pixels.
        parametrization: whether every channel is predicted or what is added to the known geometry.
        pixel_grid: pixel grid of rays and unprojection; ``legacy`` that of the paper's networks.
        image_size: pixels per side of the views; those of the data by default.
        rendering: its loss.
        files: how the weights are written: in half precision as in the small models, or as in the release.
    """

    dim: int = 192
    blocks: int = 6
    heads: int = 3
    patch: int = 16
    parametrization: Parametrization = "residual"
    pixel_grid: PixelGrid = "center"
    image_size: int | None = None
    rendering: Annotated[RenderingLossOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: SMALL_LOSS
    )
    files: Literal["model", "release"] = "model"
    overfit_goal: ClassVar = OverfitGoal("psnr_input", 35.0)  # dB

    def __post_init__(self) -> None:
        require_at_least(1, self, "dim", "blocks", "heads", "patch")

    @property
    def release(self) -> Release | None:
        """Place among the released weights, of a network that is written as these are."""
        return Release(RECONSTRUCTOR_RELEASE) if self.files == "release" else None

    @property
    def image_patch(self) -> int:
        """Pixels per side of a token's patch."""
        return self.patch

    def network(self) -> GSRecon:
        """The untrained reconstructor; a network of absolute values has the first weights of the paper's."""
        network = GSRecon(
            dim=self.dim,
            blocks=self.blocks,
            heads=self.heads,
            patch=self.patch,
            parametrization=self.parametrization,
            pixel_grid=self.pixel_grid,
            image_size=self.image_size,
        )
        if self.parametrization == "absolute":
            initialise_reconstructor(network)
        return network

    def network_size(self, _folders: StageFolders, /) -> int | None:
        """Pixels per side of the images."""
        return self.image_size

    def build(self, _folders: StageFolders, /) -> "ReconstructionStage":
        """The stage."""
        return ReconstructionStage(self, self.network())


class ReconstructionStage(Stage[GSRecon]):
    """Four views in, rendering loss on those and on novel views (DiffSplat, ICLR 2025, section 3.1)."""

    shardable = True

    def __init__(self, config: ReconstructionConfig, reconstructor: GSRecon) -> None:
        super().__init__()
        self.released = config.release is not None
        self.network = reconstructor
        self.loss = config.rendering.rendering_loss(reconstructor.pixel_grid)
        self.perceptual = self.loss.perceptual

    def forward(self, batch: Views, step: int, /) -> Losses:
        """Rendering loss; the first four of the views are the inputs."""
        return Losses.mean(self.loss(self._rendering(batch), batch, step))

    @torch.no_grad()
    def evaluate(self, batch: Views) -> Report:
        """PSNR of input and novel views, and an image of truth over rendering."""
        return report_rendering(self._rendering(batch), batch, self.perceptual)

    def _rendering(self, batch: Views) -> Rendering:
        """Renderings in all views of what the first four give."""
        grid = self.network(batch.take(slice(0, INPUT_VIEWS)))
        return self.loss.render(grid, batch, self.network.pixel_grid)
