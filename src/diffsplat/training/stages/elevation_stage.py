"""Training of elevation networks on single views: the released one, and that of the embedded model."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.errors import InvalidInputError, require, require_at_least
from diffsplat.models.elevation_network import ElevationConfig, ElevationEstimator
from diffsplat.models.mini_elevation_network import MiniElevationEstimator
from diffsplat.pretrained.release_catalogue import DINOV2_REPOSITORY, ELEVATION_RELEASE
from diffsplat.pretrained.released_networks import load_elevation_network
from diffsplat.training.elevation_batches import ElevationBatch
from diffsplat.training.released_layout_export import Release
from diffsplat.training.rendered_view_loss import ObjectLosses
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.stage_interface import Losses, Report, Stage, StageConfig

if TYPE_CHECKING:
    from transformers import Dinov2WithRegistersModel


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
        offset_weight: of the squared error of the degrees above an interval's lower bound.
    """

    pretrained_backbone: bool = True
    width: int = 192
    depth: int = 6
    patch: int = 16
    grid: int = 8
    offset_weight: float = 1.0

    def __post_init__(self) -> None:
        require_at_least(1, self, "width", "depth", "patch", "grid")
        require_at_least(0, self, "offset_weight")

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
            return ElevationEstimator(
                ElevationConfig(
                    width=self.width,
                    depth=self.depth,
                    heads=max(1, self.width // 64),
                    patch=self.patch,
                    grid=self.grid,
                    head_width=self.width,
                    input_size=self.patch * self.grid,
                )
            )
        from transformers import Dinov2WithRegistersModel

        backbone: Any = Dinov2WithRegistersModel.from_pretrained(folders.pretrained_part(DINOV2_REPOSITORY))
        return estimator_of_backbone(backbone)


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


class ElevationStage(Stage[ElevationEstimator]):
    """Cross-entropy of the interval of the elevation and squared error inside it, on images without augmentation."""

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
        if earlier.config != self.network.config:
            raise InvalidInputError(
                f"the network in {str(folder)!r} is a {earlier.config}, expected {self.network.config}"
            )
        self.network.load_state_dict(earlier.state_dict())

    def forward(self, batch: ElevationBatch, _step: int, /) -> Losses:
        """Loss of a batch of images."""
        logits, offsets = self.network.classify(batch.images)
        outputs = logits.float(), offsets.float()
        bounds, weight = self.network.lower_bounds, self.config.offset_weight
        return Losses.mean(elevation_losses(*outputs, batch.degrees, bounds, weight))

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
        images = recolored(_mirrored(batch.images), self.config.recoloring)
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


def _mirrored(images: Tensor) -> Tensor:
    """Half of the images ``[B, 3, H, W]``, drawn at random, mirrored left to right."""
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(-1), images)


def recolored(images: Tensor, deviation: float) -> Tensor:
    """Images ``[B, 3, H, W]`` on white, their colours mixed by a random matrix each; white stays white."""
    mixture = torch.eye(3, device=images.device) + deviation * torch.randn(
        len(images), 3, 3, device=images.device
    )
    return (1 - torch.einsum("bij,bjhw->bihw", mixture, 1 - images)).clamp(0, 1)


def estimator_of_backbone(backbone: "Dinov2WithRegistersModel") -> ElevationEstimator:
    """An elevation network with the sizes and weights of a DINOv2, and untrained heads.

    Raises:
        ValueError: when it is not such a network.
    """
    settings: Any = backbone.config
    config = ElevationConfig(
        width=settings.hidden_size,
        depth=settings.num_hidden_layers,
        heads=settings.num_attention_heads,
        mlp_ratio=int(settings.mlp_ratio),
        patch=settings.patch_size,
        grid=settings.image_size // settings.patch_size,
        registers=settings.num_register_tokens,
        head_width=settings.hidden_size,
    )
    estimator = ElevationEstimator(config)
    estimator.backbone.load_state_dict(backbone.state_dict())
    return estimator
