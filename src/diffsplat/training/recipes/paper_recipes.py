"""Recipes of the paper's networks: networks, losses and optimisers as in its runs on eight GPUs.

Batches are those of one process; a step of eight takes eight times as many objects. Sources: DiffSplat (ICLR 2025),
section 4.1 and appendix. Differences: gradients of all but the denoisers are clipped, which the paper's runs meant to
do and did not, and the weight of the perceptual distance rises over the warm-up of the learning rate.
"""

from dataclasses import replace
from typing import get_args

from diffsplat.models.denoiser_families import Variant
from diffsplat.pretrained.release_catalogue import ControlKind
from diffsplat.training.cached_view_batches import DenoisedViewSourceConfig
from diffsplat.training.elevation_batches import ElevationSourceConfig
from diffsplat.training.recipes.model_recipe import NetworkRecipe
from diffsplat.training.rendered_view_loss import RenderedViewWeights, RenderingLossOptions
from diffsplat.training.stages.autoencoder_stage import ReleasedAutoencoderConfig, TinyDecoderConfig
from diffsplat.training.stages.denoiser_configs import BackboneDenoiserConfig, BackboneName
from diffsplat.training.stages.diffusion_stage import DiffusionConfig
from diffsplat.training.stages.elevation_stage import ElevationStageConfig
from diffsplat.training.stages.reconstruction_stage import ReconstructionConfig
from diffsplat.training.stages.stage_recipe import GradientTraining
from diffsplat.training.trainer_config import EmaConfig, OptimConfig, TrainerConfig
from diffsplat.training.view_batches import ViewSourceConfig

_STEPS = 124_300
"""30 epochs of 265,232 objects, 64 a step."""
_ELEVATION_STEPS = 62_200
"""The same of 128 objects a step."""

_OPTIMISER = OptimConfig(
    lr=4e-4, betas=(0.9, 0.95), weight_decay=0.05, decayed="all", warmup_steps=1_000, warmup_from_zero=True
)
_ELEVATION_OPTIMISER = replace(_OPTIMISER, lr=1e-4, lr_factors=(("backbone", 0.1),))

_LOSS = RenderingLossOptions(
    RenderedViewWeights(perceptual=1.0, perceptual_size=256, warmup_start=0, warmup_end=1_000),
    perceptual="lpips",
)

_VIEWS = ViewSourceConfig(batch_size=8, composition="released", image_size=256)
_TRAINER = TrainerConfig(
    steps=_STEPS,
    optim=_OPTIMISER,
    ema=EmaConfig(decay=0.9999),
    checkpoint_minutes=30,
    evaluate_every=2_500,
    log_every=50,
)

_FAMILIES: dict[Variant, str] = {"sd": "Stable Diffusion 1.5", "sdxl": "SDXL", "sd3": "Stable Diffusion 3"}

RECONSTRUCTION = GradientTraining(
    ReconstructionConfig(
        dim=512,
        blocks=12,
        heads=8,
        patch=8,
        parametrization="absolute",
        pixel_grid="legacy",
        image_size=256,
        rendering=_LOSS,
        files="release",
    ),
    _VIEWS,
    _TRAINER,
)

ELEVATION = GradientTraining(
    ElevationStageConfig(),
    ElevationSourceConfig(batch_size=16, views=8),
    replace(_TRAINER, steps=_ELEVATION_STEPS, optim=_ELEVATION_OPTIMISER, precision="fp32"),
)


def _autoencoder(variant: Variant) -> NetworkRecipe:
    return NetworkRecipe(
        f"autoencoder-{variant}",
        f"splat autoencoder from that of {_FAMILIES[variant]}, 84 M parameters",
        GradientTraining(
            ReleasedAutoencoderConfig(rendering=_LOSS, variant=variant),
            replace(_VIEWS, batch_size=2),
            replace(_TRAINER, accumulation=4),
        ),
    )


def _tiny_decoder(variant: Variant) -> NetworkRecipe:
    return NetworkRecipe(
        f"tiny-decoder-{variant}",
        f"its tiny decoder from the TAESD of {_FAMILIES[variant]}, 1.2 M parameters",
        GradientTraining(TinyDecoderConfig(rendering=_LOSS, variant=variant), _VIEWS, _TRAINER),
    )


_DENOISING_STEPS = 65_100
"""100 epochs of 83,296 objects in batches of 128: 8 GPUs with 16 objects each."""

_DENOISING = replace(
    _TRAINER,
    steps=_DENOISING_STEPS,
    optim=replace(_OPTIMISER, lr=1e-4, betas=(0.9, 0.999), weight_decay=0.01, schedule="constant"),
    accumulation=2,
    evaluate_every=5_000,
    log_every=10,
)
_DENOISER_LOSS = RenderingLossOptions(RenderedViewWeights(perceptual=1.0), perceptual="lpips")

_BACKBONES: dict[BackboneName, str] = {
    "sd15": "denoiser from Stable Diffusion 1.5, 0.86 B; --image, --rendering-loss",
    "pixart-sigma": "denoiser from PixArt-Sigma, 0.61 B; --image, --rendering-loss",
    "sd35m": "denoiser from Stable Diffusion 3.5 medium, 2.24 B; --image, --rendering-loss",
}


def _denoised_views(network: BackboneDenoiserConfig, batch_size: int) -> DenoisedViewSourceConfig:
    return DenoisedViewSourceConfig(
        batch_size=batch_size, composition="released", image_size=256, latent_space=network.variant
    )


def _diffusion(backbone: BackboneName, batch_size: int, accumulation: int) -> NetworkRecipe:
    network = BackboneDenoiserConfig(backbone)
    return NetworkRecipe(
        f"diffusion-{backbone}",
        _BACKBONES[backbone],
        GradientTraining(
            DiffusionConfig(network, rendering=_DENOISER_LOSS, sample_guidance=(1.0, 3.0, 7.5)),
            _denoised_views(network, batch_size),
            replace(_DENOISING, accumulation=accumulation),
        ),
    )


def _controlnet(kind: ControlKind) -> NetworkRecipe:
    network = BackboneDenoiserConfig("sd15")
    return NetworkRecipe(
        f"controlnet-{kind}",
        f"ControlNet for {kind} maps on the frozen denoiser from Stable Diffusion 1.5, 361 M",
        GradientTraining(
            DiffusionConfig(network, control=kind, sample_guidance=(1.0, 3.0, 7.5)),
            _denoised_views(network, batch_size=8),
            replace(_DENOISING, ema=EmaConfig(decay=0.0)),
        ),
    )


PAPER_NETWORKS = (
    NetworkRecipe("reconstruction", "reconstructor of the paper, 41.8 M parameters, 256 px", RECONSTRUCTION),
    *(_autoencoder(variant) for variant in _FAMILIES),
    *(_tiny_decoder(variant) for variant in _FAMILIES),
    NetworkRecipe("elevation", "elevation network from DINOv2, 86 M parameters, 224 px", ELEVATION),
    _diffusion("sd15", batch_size=8, accumulation=2),
    _diffusion("pixart-sigma", batch_size=8, accumulation=2),
    _diffusion("sd35m", batch_size=2, accumulation=8),
    *(_controlnet(kind) for kind in get_args(ControlKind)),
)
