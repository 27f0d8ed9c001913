"""Training of the embedded model's elevation network on single views."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.models.mini_elevation_network import MiniElevationEstimator
from diffsplat.training.elevation_batches import ElevationBatch
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.elevation_stage import elevation_report
from diffsplat.training.stages.stage import Losses, Report, Stage, StageConfig


@dataclass(frozen=True)
class MiniElevationStageConfig(StageConfig):
    """The embedded model's elevation network.

    Args:
        input_size: pixels per side that every image is resized to.
        widths: channels of its stages.
        hidden: channels in front of the output.
        dropout: share of the last stage's values that are left out.
        linear_above: errors above as many degrees count linearly, below quadratically.
    """

    input_size: int = 64
    widths: tuple[int, ...] = (48, 96, 160)
    hidden: int = 128
    dropout: float = 0.2
    linear_above: float = 2.0

    def network(self) -> MiniElevationEstimator:
        """The network with random weights."""
        return MiniElevationEstimator(self.input_size, self.widths, self.hidden, self.dropout)

    def build(self, _folders: StageFolders, /) -> "MiniElevationStage":
        """The stage."""
        return MiniElevationStage(self, self.network())


class MiniElevationStage(Stage[MiniElevationEstimator]):
    """Huber loss of the degrees, on images that are mirrored at random: an elevation has no left and right."""

    def __init__(self, config: MiniElevationStageConfig, estimator: MiniElevationEstimator) -> None:
        super().__init__()
        self.config = config
        self.network = estimator

    def forward(self, batch: ElevationBatch, _step: int, /) -> Losses:
        """Loss of a batch of images."""
        degrees = self.network(_mirrored(batch.images))
        return Losses(functional.smooth_l1_loss(degrees, batch.degrees, beta=self.config.linear_above))

    @torch.no_grad()
    def evaluate(self, batch: ElevationBatch) -> Report:
        """Mean and median absolute error in degrees, and the share of errors below 5 degrees."""
        return elevation_report(self.network(batch.images), batch.degrees)


def _mirrored(images: Tensor) -> Tensor:
    """Half of the images ``[B, 3, H, W]``, drawn at random, mirrored left to right."""
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(-1), images)
