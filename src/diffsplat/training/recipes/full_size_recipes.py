"""Recipes of the paper's networks but the denoisers: networks, losses and optimisers as in its runs on eight GPUs.

Batches are those of one process; a step of eight takes eight times as many objects. Differences: gradients are clipped,
which the paper's runs meant to do in these trainers and did not, and the weight of the perceptual distance rises over
the warm-up of the learning rate.
"""

from dataclasses import replace

from diffsplat.models.network_families import Variant
from diffsplat.training.elevation_batches import ElevationSourceConfig
from diffsplat.training.recipes.recipe import NetworkRecipe
from diffsplat.training.rendered_view_loss import RenderedViewWeights
from diffsplat.training.stages.autoencoder_stage import AutoencoderConfig, TinyDecoderConfig
from diffsplat.training.stages.elevation_stage import ElevationStageConfig
from diffsplat.training.stages.reconstruction_stage import ReconstructionConfig
from diffsplat.training.stages.rendering_loss_options import RenderingLossOptions
from diffsplat.training.stages.stage_recipe import GradientTraining
from diffsplat.training.trainer_config import EmaConfig, OptimConfig, TrainerConfig
from diffsplat.training.view_batches import ViewSourceConfig

_STEPS = 124_300
"""30 epochs of 265,232 objects, 64 a step."""
_ELEVATION_STEPS = 62_200
"""The same of 128 objects a step."""

_EMA = EmaConfig(decay=0.9999, power=0.75)
_OPTIMISER = OptimConfig(
    lr=4e-4,
    betas=(0.9, 0.95),
    weight_decay=0.05,
    decayed="all",
    warmup_steps=1_000,
    warmup_from_zero=True,
)
_ELEVATION_OPTIMISER = OptimConfig(
    lr=1e-4,
    betas=(0.9, 0.95),
    weight_decay=0.05,
    decayed="all",
    lr_factors=(("backbone", 0.1),),
    warmup_steps=1_000,
    warmup_from_zero=True,
)

_LOSS = RenderingLossOptions(
    RenderedViewWeights(perceptual=1.0, perceptual_size=256, warmup_start=0, warmup_end=1_000),
    perceptual="lpips",
)


_VIEWS = ViewSourceConfig(batch_size=8, composition="released", image_size=256)
_TRAINER = TrainerConfig(
    steps=_STEPS,
    optim=_OPTIMISER,
    ema=_EMA,
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
            AutoencoderConfig(rendering=_LOSS, variant=variant),
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


FULL_SIZE_NETWORKS = (
    NetworkRecipe("reconstruction", "reconstructor of the paper, 41.8 M parameters, 256 px", RECONSTRUCTION),
    *(_autoencoder(variant) for variant in _FAMILIES),
    *(_tiny_decoder(variant) for variant in _FAMILIES),
    NetworkRecipe("elevation", "elevation network from DINOv2, 86 M parameters, 224 px", ELEVATION),
)
