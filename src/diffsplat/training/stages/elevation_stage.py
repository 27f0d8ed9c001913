"""Training of elevation networks on single views: the paper's, and that of small models."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.errors import InvalidInputError, require, require_at_least
from diffsplat.models.efficientnet import imagenet_weights, load_efficientnet
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
    """The paper's elevation network, from DINOv2 with registers, which decides its sizes.

    Args:
        offset_weight: of the squared error of the degrees above an interval's lower bound.
    """

    offset_weight: float = 1.0

    def __post_init__(self) -> None:
        require_at_least(0, self, "offset_weight")

    @property
    def pretrained(self) -> str:
        """Repository of DINOv2."""
        return DINOV2_REPOSITORY

    @property
    def release(self) -> Release:
        """Place among the released weights."""
        return Release(ELEVATION_RELEASE)

    def build(self, folders: StageFolders, /) -> "ElevationStage":
        """The stage."""
        return ElevationStage(self, self.network(folders))

    def network(self, folders: StageFolders) -> ElevationEstimator:
        """The network before training."""
        from transformers import Dinov2WithRegistersModel

        backbone: Any = Dinov2WithRegistersModel.from_pretrained(folders.pretrained_part(DINOV2_REPOSITORY))
        estimator = ElevationEstimator(config_of_backbone(backbone))
        estimator.backbone.load_state_dict(backbone.state_dict())
        return estimator


@dataclass(frozen=True)
class MiniElevationStageConfig(StageConfig):
    """The small models' elevation network, from EfficientNet-lite0.

    Args:
        input_size: pixels per side that every image is resized to.
        stages: of EfficientNet-lite0.
        frozen_stages: the first of them, which keep what they learned of ImageNet.
        places: features are averaged in as many parts of the image per side.
        hidden: channels in front of the output.
        dropout: share of the values in front of each of the two layers that are left out.
        linear_above: errors above as many degrees count linearly, below quadratically.
        recoloring: deviation of the random mixtures of colours that images are trained in; 0 for their own.
    """

    input_size: int = 128
    stages: int = 5
    frozen_stages: int = 3
    places: int = 4
    hidden: int = 256
    dropout: float = 0.3
    linear_above: float = 2.0
    recoloring: float = 0.2

    def __post_init__(self) -> None:
        require_at_least(1, self, "input_size", "stages", "places", "hidden")
        require_at_least(0, self, "frozen_stages", "linear_above", "recoloring")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "a share from 0 to below 1")

    def check_packages(self) -> None:
        """Look for that of the ImageNet weights."""
        imagenet_weights()

    def network(self) -> MiniElevationEstimator:
        """The network with random weights."""
        return MiniElevationEstimator(self.input_size, self.stages, self.places, self.hidden, self.dropout)

    def build(self, _folders: StageFolders, /) -> "MiniElevationStage":
        """The stage, its network with what EfficientNet-lite0 learned of ImageNet.

        Raises:
            ModuleNotFoundError: without the package of those weights.
        """
        network = self.network()
        network.trunk.take_over(load_efficientnet())
        network.trunk.freeze(self.frozen_stages)
        return MiniElevationStage(self, network)


class ElevationStage(Stage[ElevationEstimator]):
    """Cross-entropy of the interval of the elevation and squared error inside it.

    images --> tokens --> class --> interval and offset
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
        if earlier.config != self.network.config:
            raise InvalidInputError(
                f"the network in {str(folder)!r} is a {earlier.config}, expected {self.network.config}"
            )
        self.network.load_state_dict(earlier.state_dict())

    def forward(self, batch: ElevationBatch, _step: int, /) -> Losses:
        """Loss of a batch of images."""
        logits, offsets = self.network.classify(batch.images)
        bounds, weight = self.network.lower_bounds, self.config.offset_weight
        losses = elevation_losses(logits.float(), offsets.float(), batch.degrees, bounds, weight)
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
        images = recolored(mirrored(batch.images), self.config.recoloring)
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


def mirrored(images: Tensor) -> Tensor:
    """Half of the images ``[B, 3, H, W]``, drawn at random, mirrored left to right."""
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
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
