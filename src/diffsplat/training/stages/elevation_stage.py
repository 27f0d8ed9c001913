"""Training of elevation networks on single views: the released one, and that of the embedded model."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffsplat.errors import InvalidInputError, require, require_at_least
from diffsplat.models.elevation_network import HEAD_WIDTH, ElevationConfig, ElevationEstimator, Estimate
from diffsplat.models.mini_elevation_network import MiniElevationEstimator
from diffsplat.pretrained.release_catalogue import DINOV2_REPOSITORY, ELEVATION_RELEASE
from diffsplat.pretrained.released_networks import load_elevation_network
from diffsplat.training.elevation_batches import SURFACE_CHANNELS, ElevationBatch
from diffsplat.training.network_initialisation import initialise_elevation_backbone
from diffsplat.training.released_layout_export import Release
from diffsplat.training.rendered_view_loss import ObjectLosses
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.stage_interface import Losses, Report, Stage, StageConfig

if TYPE_CHECKING:
    from transformers import Dinov2WithRegistersModel


_SURFACE_CELLS = 2
"""Cells per side of a patch that the surface behind them is learned of."""


@dataclass(frozen=True)
class ElevationStageConfig(StageConfig):
    """The elevation network.

    Args:
        pretrained_backbone: start from DINOv2 with registers, which decides the sizes of the transformer; otherwise
            from random weights.
        width: channels of the transformer; a head has 64.
        depth: its blocks.
        patch: pixels per side of a patch.
        grid: patches per side of an image.
        estimate: whether an estimate is the likeliest interval, as the paper has it, or the mean of all.
        mirrored: train on images that are mirrored left to right at random, as elevations have no side.
        offset_weight: of the squared error of the degrees above an interval's lower bound.
        surface_weight: of the squared error of the surface that the tokens of the patches are read as, see
            :func:`~diffsplat.training.elevation_batches.seen_surface`, by a layer that is not kept. A transformer
            with random weights learns nothing from thousands of elevations alone.
    """

    pretrained_backbone: bool = True
    width: int = 192
    depth: int = 6
    patch: int = 16
    grid: int = 8
    estimate: Estimate = "likeliest"
    mirrored: bool = False
    offset_weight: float = 1.0
    surface_weight: float = 0.0

    def __post_init__(self) -> None:
        require_at_least(1, self, "width", "depth", "patch", "grid")
        require_at_least(0, self, "offset_weight", "surface_weight")

    @property
    def pretrained(self) -> str | None:
        """Repository of DINOv2."""
        return DINOV2_REPOSITORY if self.pretrained_backbone else None

    @property
    def release(self) -> Release | None:
        """Place among the released weights, of a network of the released sizes."""
        return Release(ELEVATION_RELEASE) if self.pretrained_backbone else None

    def build(self, folders: StageFolders, /) -> "ElevationStage":
        """The stage."""
        return ElevationStage(self, self.network(folders))

    def network(self, folders: StageFolders) -> ElevationEstimator:
        """The network before training."""
        if not self.pretrained_backbone:
            config = ElevationConfig(
                width=self.width,
                depth=self.depth,
                heads=max(1, self.width // HEAD_WIDTH),
                patch=self.patch,
                grid=self.grid,
                head_width=self.width,
                input_size=self.patch * self.grid,
                estimate=self.estimate,
            )
            estimator = self._kind(config)
            initialise_elevation_backbone(estimator)
            return estimator
        from transformers import Dinov2WithRegistersModel

        backbone: Any = Dinov2WithRegistersModel.from_pretrained(folders.pretrained_part(DINOV2_REPOSITORY))
        estimator = self._kind(replace(config_of_backbone(backbone), estimate=self.estimate))
        estimator.backbone.load_state_dict(backbone.state_dict())
        return estimator

    def _kind(self, config: ElevationConfig) -> ElevationEstimator:
        return SurfaceReader(config) if self.surface_weight else ElevationEstimator(config)


@dataclass(frozen=True)
class MiniElevationStageConfig(StageConfig):
    """The embedded model's elevation network.

    Args:
        input_size: pixels per side that every image is resized to.
        widths: channels of its stages.
        hidden: channels in front of the output.
        dropout: share of the last stage's values that are left out.
        linear_above: errors above as many degrees count linearly, below quadratically.
        recoloring: deviation of the random mixtures of colours that images are trained in; 0 for their own.
    """

    input_size: int = 64
    widths: tuple[int, ...] = (48, 96, 160)
    hidden: int = 128
    dropout: float = 0.2
    linear_above: float = 2.0
    recoloring: float = 0.2

    def __post_init__(self) -> None:
        require_at_least(1, self, "input_size", "hidden")
        require_at_least(0, self, "linear_above", "recoloring")
        require(all(width >= 1 for width in self.widths), "widths", self.widths, "numbers of channels")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "a share from 0 to below 1")

    def network(self) -> MiniElevationEstimator:
        """The network with random weights."""
        return MiniElevationEstimator(self.input_size, self.widths, self.hidden, self.dropout)

    def build(self, _folders: StageFolders, /) -> "MiniElevationStage":
        """The stage."""
        return MiniElevationStage(self, self.network())


class SurfaceReader(ElevationEstimator):
    """An elevation network that also reads the surface behind patches, with a layer that no file has."""

    def __init__(self, config: ElevationConfig) -> None:
        super().__init__(config)
        self.surface_head = nn.Linear(config.width, SURFACE_CHANNELS * _SURFACE_CELLS**2)

    def surface(self, features: Tensor) -> Tensor:
        """``[B, 5, h, w]`` mean surface in the cells of the patches, of their last tokens ``[B, N, width]``."""
        side = math.isqrt(features.shape[1])
        cells = self.surface_head(features).mT.unflatten(-1, (side, side))
        return functional.pixel_shuffle(cells, _SURFACE_CELLS)


class ElevationStage(Stage[ElevationEstimator]):
    """Cross-entropy of the interval of the elevation and squared error inside it.

    images --> tokens --> class ----> interval and offset, as of the released network
                      --> patches --> surface behind them (an option)
    """

    def __init__(self, config: ElevationStageConfig, estimator: ElevationEstimator) -> None:
        super().__init__()
        self.config = config
        self.network = estimator
        self.network.backbone.embeddings.mask_token.requires_grad_(False)

    def start_from(self, folder: Path, /) -> None:
        """Take over the weights of an earlier run or of a release.

        Raises:
            ValueError: for a network of other sizes.
        """
        earlier = load_elevation_network(folder)
        if replace(earlier.config, estimate=self.config.estimate) != self.network.config:
            raise InvalidInputError(
                f"the network in {str(folder)!r} is a {earlier.config}, expected {self.network.config}"
            )
        # No file has the layer that reads surfaces.
        self.network.load_state_dict(earlier.state_dict(), strict=False)

    def forward(self, batch: ElevationBatch, _step: int, /) -> Losses:
        """Loss of a batch of images."""
        batch = mirrored(batch) if self.config.mirrored else batch
        features = self.network.features(batch.images)
        logits, offsets = self.network.classify_features(features[:, 0])
        bounds, weight = self.network.lower_bounds, self.config.offset_weight
        losses = elevation_losses(logits.float(), offsets.float(), batch.degrees, bounds, weight)
        if isinstance(self.network, SurfaceReader):
            read = self.network.surface(features[:, 1:]).float()
            missed = surface_errors(read, batch.surface)
            total = losses.total + self.config.surface_weight * missed
            losses = ObjectLosses(total, {**losses.terms, "surface": missed.detach()})
        return Losses.mean(losses)

    @torch.no_grad()
    def evaluate(self, batch: ElevationBatch) -> Report:
        """Mean and median absolute error in degrees, and the share of errors below 5 degrees."""
        return elevation_report(self.network(batch.images), batch.degrees)


class MiniElevationStage(Stage[MiniElevationEstimator]):
    """Huber loss of the degrees, on images that are mirrored and recoloured at random.

    An elevation has no left and right, and few objects share few palettes.
    """

    def __init__(self, config: MiniElevationStageConfig, estimator: MiniElevationEstimator) -> None:
        super().__init__()
        self.config = config
        self.network = estimator

    def forward(self, batch: ElevationBatch, _step: int, /) -> Losses:
        """Loss of a batch of images."""
        images = recolored(_flipped(batch.images, _half(batch)), self.config.recoloring)
        degrees = self.network(images)
        return Losses(functional.smooth_l1_loss(degrees, batch.degrees, beta=self.config.linear_above))

    @torch.no_grad()
    def evaluate(self, batch: ElevationBatch) -> Report:
        """Mean and median absolute error in degrees, and the share of errors below 5 degrees."""
        return elevation_report(self.network(batch.images), batch.degrees)


def elevation_losses(
    logits: Tensor, offsets: Tensor, degrees: Tensor, lower_bounds: Tensor, offset_weight: float = 1.0
) -> ObjectLosses:
    """Cross-entropy of the interval plus squared error of the degrees above its lower bound, image by image.

    Args:
        logits: ``[B, classes]`` of the intervals.
        offsets: ``[B]`` predicted degrees above an interval's lower bound; clamped to the interval.
        degrees: ``[B]`` true elevations, negative above the horizon as the weights count; all inside the intervals.
        lower_bounds: ``[classes]`` equally spaced degrees.
        offset_weight: of the squared error.
    """
    width = float(lower_bounds[1] - lower_bounds[0])
    interval = torch.floor((degrees - lower_bounds[0]) / width).long()
    target = degrees - lower_bounds[interval]
    classified = functional.cross_entropy(logits, interval, reduction="none")
    placed = (offsets.clamp(0, width) - target).square()
    terms = {"interval": classified.detach(), "offset": placed.detach()}
    return ObjectLosses(classified + offset_weight * placed, terms)


def elevation_report(estimated: Tensor, degrees: Tensor) -> Report:
    """Figures of estimated elevations ``[B]`` against the true ones."""
    errors = (estimated - degrees).abs()
    return Report(
        {
            "mean_error_degrees": float(errors.mean()),
            "median_error_degrees": float(errors.median()),
            "below_5_degrees": float((errors < 5).float().mean()),
        }
    )


def surface_errors(read: Tensor, surface: Tensor) -> Tensor:
    """``[B]`` mean squared errors of ``[B, 5, h, w]`` against means of the surface ``[B, 5, H, W]`` in its cells."""
    means = functional.adaptive_avg_pool2d(surface, (read.shape[-2], read.shape[-1]))
    return (read - means).square().mean(dim=(1, 2, 3))


def mirrored(batch: ElevationBatch) -> ElevationBatch:
    """Half of the images, drawn at random, mirrored left to right, and what lies behind them with them."""
    chosen = _half(batch)
    surface = _flipped(batch.surface, chosen)
    surface[:, 1:2] *= torch.where(chosen, -1, 1)  # along the camera's x
    return replace(batch, images=_flipped(batch.images, chosen), surface=surface)


def _half(batch: ElevationBatch) -> Tensor:
    """``[B, 1, 1, 1]`` whether an image is one of the half that is drawn at random."""
    return torch.rand(len(batch.images), 1, 1, 1, device=batch.images.device) < 0.5


def _flipped(images: Tensor, chosen: Tensor) -> Tensor:
    return torch.where(chosen, images.flip(-1), images)


def recolored(images: Tensor, deviation: float) -> Tensor:
    """Images ``[B, 3, H, W]`` on white, their colours mixed by a random matrix each; white stays white."""
    mixture = torch.eye(3, device=images.device) + deviation * torch.randn(
        len(images), 3, 3, device=images.device
    )
    return (1 - torch.einsum("bij,bjhw->bihw", mixture, 1 - images)).clamp(0, 1)


def config_of_backbone(backbone: "Dinov2WithRegistersModel") -> ElevationConfig:
    """Sizes of an elevation network on a DINOv2."""
    settings: Any = backbone.config
    return ElevationConfig(
        width=settings.hidden_size,
        depth=settings.num_hidden_layers,
        heads=settings.num_attention_heads,
        mlp_ratio=int(settings.mlp_ratio),
        patch=settings.patch_size,
        grid=settings.image_size // settings.patch_size,
        registers=settings.num_register_tokens,
        head_width=settings.hidden_size,
    )
