"""Recipes of small networks, of the architectures of the full-size ones: two CPU cores train each within an hour."""

from dataclasses import replace
from typing import cast

from diffsplat.training.elevation_batches import ElevationSourceConfig
from diffsplat.training.recipes.mini_recipe import MINI
from diffsplat.training.recipes.recipe import NetworkRecipe
from diffsplat.training.stages.autoencoder_stage import SmallAutoencoderConfig
from diffsplat.training.stages.elevation_stage import ElevationStageConfig
from diffsplat.training.stages.image_autoencoder_stage import ImageAutoencoderConfig
from diffsplat.training.stages.reconstruction_stage import SMALL_LOSS
from diffsplat.training.stages.stage_recipe import GradientTraining
from diffsplat.training.trainer_config import EmaConfig, OptimConfig, TrainerConfig
from diffsplat.training.view_batches import ViewSourceConfig

_EMA = EmaConfig(decay=0.995)

SMALL_IMAGE_AUTOENCODER = GradientTraining(
    ImageAutoencoderConfig(),
    ViewSourceConfig(batch_size=1, novel_views=0, evaluation_objects=16),
    TrainerConfig(
        steps=2_600,
        optim=OptimConfig(lr=1.5e-3, betas=(0.9, 0.95), weight_decay=0.01, warmup_steps=50),
        ema=_EMA,
        evaluate_every=500,
    ),
)

SMALL_AUTOENCODER = GradientTraining(
    SmallAutoencoderConfig(
        image_size=128,
        rendering=SMALL_LOSS,
        files="model",
    ),
    ViewSourceConfig(batch_size=1, novel_views=2, evaluation_objects=12),
    TrainerConfig(
        steps=5_000,
        optim=OptimConfig(lr=1.5e-3, betas=(0.9, 0.95), weight_decay=0.01, warmup_steps=50),
        ema=_EMA,
        evaluate_every=500,
    ),
)

SMALL_ELEVATION = GradientTraining(
    ElevationStageConfig(pretrained_backbone=False, width=192, depth=6, patch=16, grid=8),
    ElevationSourceConfig(batch_size=8, views=4, evaluation_objects=64),
    TrainerConfig(
        steps=4_000,
        optim=OptimConfig(lr=5e-4, betas=(0.9, 0.95), weight_decay=0.05, warmup_steps=100),
        ema=_EMA,
        evaluate_every=500,
    ),
)

SMALL_RECONSTRUCTION = replace(
    cast(GradientTraining, MINI.stages["reconstruction"]), source=ViewSourceConfig(batch_size=2)
)
"""That of the embedded model with smaller batches, which 5,000 steps take half an hour with."""

SMALL_NETWORKS = (
    NetworkRecipe("reconstruction-small", "reconstructor of the small models, 128 px", SMALL_RECONSTRUCTION),
    NetworkRecipe(
        "image-autoencoder-small", "image autoencoder of the small models", SMALL_IMAGE_AUTOENCODER
    ),
    NetworkRecipe("autoencoder-small", "splat autoencoder from that of images, 128 px", SMALL_AUTOENCODER),
    NetworkRecipe("elevation-small", "elevation network of 128 px images", SMALL_ELEVATION),
)
