"""Recipes of small networks, of the architectures of the full-size ones: two CPU cores train each within an hour."""

from diffsplat.training.recipes.recipe import NetworkRecipe
from diffsplat.training.rendered_view_loss import RenderedViewWeights
from diffsplat.training.stages.autoencoder_stage import SmallAutoencoderConfig
from diffsplat.training.stages.image_autoencoder_stage import ImageAutoencoderConfig
from diffsplat.training.stages.rendering_loss_options import RenderingLossOptions
from diffsplat.training.stages.stage_recipe import GradientTraining
from diffsplat.training.trainer_config import EmaConfig, OptimConfig, TrainerConfig
from diffsplat.training.view_batches import ViewSourceConfig

_EMA = EmaConfig(decay=0.995)

SMALL_IMAGE_AUTOENCODER = GradientTraining(
    ImageAutoencoderConfig(),
    ViewSourceConfig(batch_size=1, novel_views=0, evaluation_objects=16),
    TrainerConfig(
        steps=4_000,
        optim=OptimConfig(lr=1.5e-3, betas=(0.9, 0.95), weight_decay=0.01, warmup_steps=50),
        ema=_EMA,
        evaluate_every=500,
    ),
)

SMALL_AUTOENCODER = GradientTraining(
    SmallAutoencoderConfig(
        image_size=128,
        rendering=RenderingLossOptions(RenderedViewWeights(absolute=0.1)),
        files="model",
    ),
    ViewSourceConfig(batch_size=1, novel_views=2, evaluation_objects=16),
    TrainerConfig(
        steps=1_500,
        optim=OptimConfig(lr=1e-3, betas=(0.9, 0.95), weight_decay=0.01, warmup_steps=50),
        ema=_EMA,
        evaluate_every=250,
    ),
)

SMALL_NETWORKS = (
    NetworkRecipe(
        "image-autoencoder-small", "image autoencoder of the small models", SMALL_IMAGE_AUTOENCODER
    ),
    NetworkRecipe("autoencoder-small", "splat autoencoder from that of images, 128 px", SMALL_AUTOENCODER),
)
