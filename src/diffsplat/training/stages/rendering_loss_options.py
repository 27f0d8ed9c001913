"""Options of the rendering loss that stages share."""

from dataclasses import dataclass, field
from pathlib import Path

from diffsplat.core import PixelGrid
from diffsplat.evaluation.perceptual_distance import DistanceKind, VggDistance, load_perceptual_distance
from diffsplat.training.rendered_view_loss import RenderedViewLoss, RenderedViewWeights


@dataclass(frozen=True)
class RenderingLossOptions:
    """Rendering loss of a stage.

    Args:
        loss: weights of its terms.
        perceptual: network of the perceptual distance, LPIPS or its shift-tolerant variant; none on a CPU, where it
            would take most of the time.
        perceptual_weights: folder or file of that network's weights; by default they are downloaded or those of an
            installed package.
    """

    loss: RenderedViewWeights = field(default_factory=RenderedViewWeights)
    perceptual: DistanceKind = "none"
    perceptual_weights: Path | None = None

    def rendering_loss(self, pixel_grid: PixelGrid) -> RenderedViewLoss:
        """The loss of renderings of splats on a pixel grid.

        Raises:
            ValueError: for a weight of the perceptual distance without a network.
            FileNotFoundError: when the network's weights are missing.
        """
        return RenderedViewLoss(self.loss, self.distance(), pixel_grid)

    def distance(self) -> VggDistance | None:
        """The perceptual distance, which validations report too.

        Raises:
            FileNotFoundError: when the network's weights are missing.
        """
        return load_perceptual_distance(self.perceptual, self.perceptual_weights)
