"""Training of a small autoencoder of images, the stand-in for that of a 2D diffusion model."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import FloatTensor, Tensor

from diffsplat.core import Views
from diffsplat.errors import require, require_at_least
from diffsplat.evaluation.image_metrics import psnr
from diffsplat.io.image_files import tile_images
from diffsplat.models.network_base_class import require_shapes
from diffsplat.pretrained.network_folders import open_image_encoder
from diffsplat.training.network_initialisation import pass_input_on
from diffsplat.training.run_folders import StageFolders, require_class
from diffsplat.training.stages.stage_interface import Losses, Report, Stage, StageConfig
from diffsplat.training.view_batches import training_objects

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

_SCALE_OBJECTS = 32
"""Objects whose images the scale of the latents is measured on."""
_SHOWN_IMAGES = 8


@dataclass(frozen=True)
class SmallAutoencoderSizes:
    """Sizes of the autoencoders of the small models, of images and of splats: they share a latent space's shape.

    Args:
        widths: channels of the levels; each level but the first halves the image.
        layers: residual blocks of a level.
        latent_channels: channels of a latent.
        norm_groups: groups of the normalisation.

    Raises:
        ValueError: for a number out of range, or widths that the groups do not divide.
    """

    widths: tuple[int, ...] = (24, 48, 96)
    layers: int = 1
    latent_channels: int = 48
    norm_groups: int = 8

    def __post_init__(self) -> None:
        require_at_least(1, self, "layers", "latent_channels", "norm_groups")
        fits = all(width >= 1 and width % self.norm_groups == 0 for width in self.widths)
        require(fits, "widths", self.widths, f"multiples of norm_groups, {self.norm_groups}")

    @property
    def arguments(self) -> dict[str, Any]:
        """Those of diffusers' ``AutoencoderKL`` that do not depend on what is coded."""
        return {
            "block_out_channels": self.widths,
            "layers_per_block": self.layers,
            "latent_channels": self.latent_channels,
            "norm_num_groups": self.norm_groups,
            "mid_block_add_attention": False,
        }


@dataclass(frozen=True)
class ImageAutoencoderConfig(SmallAutoencoderSizes, StageConfig):
    """The image autoencoder, diffusers' ``AutoencoderKL``.

    Args:
        kl_weight: weight of the divergence from a unit Gaussian per latent number; enough to keep the scale of the
            latents, and far below the errors of the images.
        crop: edge in pixels of the random squares that it is trained on.
    """

    kl_weight: float = 1e-4
    crop: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, self, "kl_weight")
        require_at_least(2 ** (len(self.widths) - 1), self, "crop")

    def network(self) -> "AutoencoderKL":
        """The untrained autoencoder."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        blocks: dict[str, Any] = {
            "down_block_types": ("DownEncoderBlock2D",) * len(self.widths),
            "up_block_types": ("UpDecoderBlock2D",) * len(self.widths),
        }
        vae = AutoencoderKL(**self.arguments, **blocks)
        pass_input_on(vae)
        return vae

    def build(self, folders: StageFolders, /) -> "ImageAutoencoderStage":
        """The stage."""
        dataset = training_objects(folders)
        count = min(_SCALE_OBJECTS, len(dataset))
        step = len(dataset) // count
        images = torch.cat([dataset.canonical(index * step).image[0] for index in range(count)])
        return ImageAutoencoderStage(self, images)


class ImageAutoencoderStage(Stage["AutoencoderKL"]):
    """Squared error of images through sampled latents, with a weak divergence from a unit Gaussian."""

    def __init__(self, config: ImageAutoencoderConfig, scale_images: Tensor) -> None:
        """Make the untrained network.

        Args:
            config: its sizes.
            scale_images: ``[N, 3, H, W]`` images that the scale of the latents is measured on.
        """
        super().__init__()
        self.config = config
        self.network = config.network()
        self._scale_images = scale_images

    def start_from(self, folder: Path, /) -> None:
        """Take over the weights of an earlier run."""
        require_class(folder, "start_from", type(self.network).__name__)
        weights = open_image_encoder(folder).state_dict()
        require_shapes(weights, self.network.state_dict(), "this AutoencoderKL", f" in {str(folder)!r}")
        self.network.load_state_dict(weights)

    def forward(self, batch: Views, _step: int, /) -> Losses:
        """Loss of a random square of every view."""
        images = random_crops(batch.image.flatten(0, 1), self.config.crop) * 2 - 1
        posterior = self._posterior(images)
        decoded = self._decode(posterior.sample())
        error = (decoded.float() - images).square().mean()
        divergence = posterior.kl().float().mean() / posterior.mean[0].numel()
        return Losses(
            error + self.config.kl_weight * divergence,
            {"squared_error": error.detach(), "kl": divergence.detach()},
        )

    @torch.no_grad()
    def evaluate(self, batch: Views) -> Report:
        """PSNR (dB) of whole images through the mode of their latents."""
        images = batch.image.flatten(0, 1)
        latents = self._posterior(images * 2 - 1).mode()
        decoded = (self._decode(latents).float() / 2 + 0.5).clamp(0, 1)
        shown = torch.cat([images[:_SHOWN_IMAGES], decoded[:_SHOWN_IMAGES]])
        return Report(
            {"psnr": float(psnr(decoded, images).mean()), "latent_deviation": float(latents.float().std())},
            {"truth_and_decoded": tile_images(shown, columns=len(shown) // 2)},
        )

    def save_pretrained(self, directory: Path, /) -> None:
        """Write the autoencoder with the factor that brings its latents to unit deviation (Rombach et al. 2022)."""
        self.network.register_to_config(scaling_factor=1 / self._latent_deviation())
        super().save_pretrained(directory)

    @torch.no_grad()
    def _latent_deviation(self) -> float:
        weight: Any = self.network.encoder.conv_in.weight
        batches = (self._scale_images.to(weight) * 2 - 1).split(4)
        return float(torch.cat([self._posterior(images).mode() for images in batches]).std())

    def _posterior(self, images: Tensor) -> "DiagonalGaussianDistribution":
        """Distribution of the latents of images ``[N, 3, H, W]`` in -1..1."""
        return self.network.encode(cast(FloatTensor, images), return_dict=False)[0]

    def _decode(self, latents: Tensor) -> Tensor:
        return self.network.decode(cast(FloatTensor, latents), return_dict=False)[0]


def random_crops(images: Tensor, size: int) -> Tensor:
    """A random square of ``size`` pixels of each of the images ``[N, C, H, W]``; whole ones where they are smaller."""
    height, width = images.shape[-2:]
    if height <= size or width <= size:
        return images
    tops = torch.randint(height - size + 1, (len(images),)).tolist()
    lefts = torch.randint(width - size + 1, (len(images),)).tolist()
    return torch.stack(
        [image[:, y : y + size, x : x + size] for image, y, x in zip(images, tops, lefts, strict=True)]
    )
