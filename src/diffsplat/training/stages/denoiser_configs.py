"""Configurations of denoisers: initial weights, objective, sampler, text and image encoders."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from diffsplat.errors import require
from diffsplat.io.json_files import read_json
from diffsplat.models.condition_encoder import ConditionEncoder
from diffsplat.models.denoiser_families import Family, Variant
from diffsplat.models.multiview_pixart import MultiViewPixArt, make_denoiser
from diffsplat.models.rays_and_noise_levels import PLUCKER_CHANNELS
from diffsplat.models.text.quantized_sentence_encoder import TextEncoder
from diffsplat.models.text.text_condition import PromptEncoder
from diffsplat.pipelines.pipeline_interfaces import Autoencoder, Denoiser
from diffsplat.pretrained.network_folders import open_denoiser, open_image_encoder
from diffsplat.pretrained.release_catalogue import Backbone, Prediction, find_backbone
from diffsplat.pretrained.schedulers import FlowEulerScheduler, make_scheduler
from diffsplat.training.diffusion_objective import (
    InverseLevelWeight,
    LogitNormalLevels,
    MinSnrWeight,
    Objective,
    ShiftedFlowSteps,
    UniformTimesteps,
)
from diffsplat.training.network_initialisation import widen_denoiser, widen_input
from diffsplat.training.run_folders import StageFolders, find_network, require_class
from diffsplat.training.tensor_cache import caching_device

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

BackboneName = Literal["sd15", "pixart-sigma", "sd35m"]

SMALL_SCHEDULE: dict[str, Any] = {
    "_class_name": "DDPMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "timestep_spacing": "trailing",
}
"""Noise schedule of Stable Diffusion 1.5, for small denoisers too."""

_NORM_GROUPS = 16
"""Groups of the normalisation of small denoisers."""


_PROJECTION = "pos_embed.proj.weight"
"""Weight of the layer that a denoiser of the embedded model's kind takes latents, rays and conditions with."""


@dataclass(frozen=True)
class PromptSource:
    """What encodes the prompts of a denoiser.

    Args:
        make: makes the encoder, on the device that caches are computed on.
        folder: of its files, which a cache of encoded prompts depends on.
    """

    make: Callable[[], PromptEncoder]
    folder: Path


class DenoiserConfig(ABC):
    """A denoiser to train."""

    @property
    def rendering_snr_gamma(self) -> float | None:
        """The rendering loss of an object counts ``min(SNR, gamma)``; None for 1."""
        return None

    @property
    def variant(self) -> Variant | None:
        """Latent space that a released autoencoder has; None where only autoencoders of runs are read."""
        return None

    @property
    def takes_conditions(self) -> bool:
        """Whether batches come with images or control maps that the one denoiser takes."""
        return False

    @abstractmethod
    def open(self, folders: StageFolders, autoencoder: Autoencoder, image: bool, /) -> Denoiser:
        """The denoiser with its first weights: of ``folders.start_from``, of a 2D model, or random ones."""

    @abstractmethod
    def objective(self, folders: StageFolders, image: bool, /) -> Objective:
        """What it learns."""

    @abstractmethod
    def scheduler(self, folders: StageFolders, image: bool, /) -> Any:
        """What it is sampled with."""

    def prompts(self, folders: StageFolders) -> PromptSource:
        """What encodes its prompts: the embedded text encoder, or that of the run."""
        encoder = folders.text_encoder
        return PromptSource(lambda: TextEncoder.from_pretrained(encoder).to(caching_device()), encoder)

    @abstractmethod
    def image_encoder(self, folders: StageFolders) -> "AutoencoderKL | ConditionEncoder":
        """What encodes condition images."""


@dataclass(frozen=True)
class MiniDenoiserConfig(DenoiserConfig):
    """The embedded model's transformer over the principal components of splat grids.

    It predicts the clean latents of a flow (Lipman et al. 2023); the squared error of the velocity is minimised, which
    is that of the latents divided by the squared level (Li and He 2025), down to a least level.

    Args:
        width: width of the tokens, a multiple of 64.
        layers: transformer blocks.
        patch: edge of the square of latents that makes a token.
        channels: how many of the latents' channels are denoised, the principal ones; 0 for all. The others hold
            detail that text says nothing of and that a small network cannot make.
        text_channels: length of a text token.
        condition_channels: of an image or a control map of view 0, those of the condition encoder and one for each
            kind; 0 for a denoiser of text alone, which one that takes them can start from.
        level_mean: mean of the logit of the noise level (Esser et al. 2024, section 3.1). Latents of thousands of
            numbers name their object already at level 0.95: what has to be learned from text lies above.
        level_deviation: deviation of that logit.
        greatest_level: noise levels are drawn below this one; of a refiner, at least the level that it takes over at.
        least_level: errors at lower noise levels count as at this one. The weight of the fine detail that is left
            there would otherwise outgrow that of the object's shape.
        sample_shift: shift of the noise levels of samples towards noise (Esser et al. 2024, section 5.3.2).
    """

    width: int = 256
    layers: int = 7
    patch: int = 4
    channels: int = 0
    text_channels: int = 384
    condition_channels: int = 0
    level_mean: float = 1.8
    level_deviation: float = 1.6
    greatest_level: float = 1.0
    least_level: float = 0.25
    sample_shift: float = 6.0

    def __post_init__(self) -> None:
        level = self.greatest_level
        require(0 < level <= 1, "greatest_level", level, "a level above 0 and at most 1")
        require(self.channels >= 0, "channels", self.channels, "a number of channels, or 0 for all")

    def open(self, folders: StageFolders, autoencoder: Autoencoder, image: bool, /) -> Denoiser:
        """The denoiser, of an earlier run or with random weights.

        Raises:
            ValueError: for a denoiser of images of the released kind, more channels than the autoencoder has, or
                weights of a network of another kind or size.
        """
        require(not image, "image", image, "condition_channels instead, for images and control maps")
        network = self.untrained(autoencoder)
        if folders.start_from is not None:
            network.load_state_dict(self._earlier_weights(find_network(folders.start_from), network))
        return network

    def _earlier_weights(self, folder: Path, network: MultiViewPixArt) -> dict[str, Tensor]:
        """Weights that a network of this size starts from, the input widened for conditions."""
        require_class(folder, "start_from", MultiViewPixArt.__name__)
        earlier = MultiViewPixArt.from_pretrained(folder)
        state, inputs = earlier.state_dict(), "in_channels"
        widened = bool(self.condition_channels) and earlier.config[inputs] < network.config[inputs]
        for name, expected in network.config.items():
            found = earlier.config[name]
            fits = found == expected or (widened and name == inputs)
            require(
                fits,
                f"{name} of the denoiser in {str(folder)!r}",
                found,
                f"the {expected} of the one to train",
            )
        if widened:
            state[_PROJECTION] = widen_input(state[_PROJECTION], network.config[inputs])
        return state

    def untrained(self, autoencoder: Autoencoder) -> MultiViewPixArt:
        """The denoiser of an autoencoder's latents with random weights.

        Raises:
            ValueError: for more channels than the autoencoder has.
        """
        available = autoencoder.latent_channels
        expected = f"at most the {available} of the autoencoder"
        require(self.channels <= available, "channels", self.channels, expected)
        return make_denoiser(
            latent_channels=self.channels or available,
            latent_size=autoencoder.latent_size,
            width=self.width,
            layers=self.layers,
            text_channels=self.text_channels,
            patch=self.patch,
            condition_channels=self.condition_channels,
        )

    def objective(self, _folders: StageFolders, _image: bool, /) -> Objective:
        """Clean latents, weighted as velocities."""
        levels = LogitNormalLevels(self.level_mean, self.level_deviation, self.greatest_level)
        return Objective("latents", levels, InverseLevelWeight(self.least_level))

    def scheduler(self, _folders: StageFolders, _image: bool, /) -> Any:
        """Euler steps along the flow."""
        return FlowEulerScheduler(self.sample_shift)

    @property
    def takes_conditions(self) -> bool:
        """Where it has channels for them."""
        return self.condition_channels > 0

    def image_encoder(self, folders: StageFolders) -> ConditionEncoder:
        """That of the run.

        Raises:
            ValueError: for another number of channels.
        """
        encoder = ConditionEncoder.from_pretrained(folders.trained("condition_encoder"))
        same = self.condition_channels == encoder.condition_channels
        expected = f"the {encoder.condition_channels} of the condition encoder"
        require(same, "condition_channels", self.condition_channels, expected)
        return encoder


@dataclass(frozen=True)
class SmallUNetConfig(DenoiserConfig):
    """A small UNet of Stable Diffusion's architecture with random weights, on the embedded text encoder.

    One that starts from an earlier denoiser has the sizes of that.

    Args:
        widths: channels of its stages; the first has no attention.
        layers: residual blocks of a stage.
        head_width: channels of an attention head.
        text_channels: length of a text token.
    """

    widths: tuple[int, ...] = (32, 64, 96)
    layers: int = 1
    head_width: int = 32
    text_channels: int = 384

    def __post_init__(self) -> None:
        fits = all(width >= 1 and width % _NORM_GROUPS == 0 for width in self.widths)
        require(fits, "widths", self.widths, f"multiples of {_NORM_GROUPS}")

    def open(self, folders: StageFolders, autoencoder: Autoencoder, image: bool, /) -> Denoiser:
        """The UNet, of an earlier run or with random weights."""
        if folders.start_from is not None:
            return _opened(folders.start_from, autoencoder.latent_channels, image=image)
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        attended = len(self.widths) - 1
        heads = tuple(max(1, width // self.head_width) for width in self.widths)
        network = UNet2DConditionModel(
            sample_size=autoencoder.latent_size,
            in_channels=autoencoder.latent_channels + PLUCKER_CHANNELS + (1 if image else 0),
            out_channels=autoencoder.latent_channels,
            block_out_channels=self.widths,
            down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * attended),
            up_block_types=(*("CrossAttnUpBlock2D",) * attended, "UpBlock2D"),
            layers_per_block=self.layers,
            cross_attention_dim=self.text_channels,
            # The argument of this name is the number of heads, by an old mistake of diffusers.
            attention_head_dim=cast(Any, heads),
            norm_num_groups=_NORM_GROUPS,
        )
        return cast(Denoiser, network)

    def objective(self, _folders: StageFolders, _image: bool, /) -> Objective:
        """v: of noise, little errors at high noise levels become great ones of the latents in a short training."""
        return Objective("v_prediction", UniformTimesteps.from_scheduler(SMALL_SCHEDULE))

    def scheduler(self, _folders: StageFolders, _image: bool, /) -> Any:
        """DPM-Solver++."""
        return make_scheduler("dpm++", SMALL_SCHEDULE, "v_prediction")

    def image_encoder(self, folders: StageFolders) -> "AutoencoderKL":
        """That of the run."""
        return open_image_encoder(folders.trained("image_autoencoder"))


@dataclass(frozen=True)
class BackboneDenoiserConfig(DenoiserConfig):
    """The denoiser of a 2D diffusion model, its input widened to take the rays of the views.

    Args:
        backbone: which model.
        min_snr: weight losses as if the signal-to-noise ratio were at most this (Hang et al. 2023); by default 1 each,
            as the released weights were trained.
    """

    backbone: BackboneName = "sd15"
    min_snr: float | None = None

    @property
    def row(self) -> Backbone:
        """The backbone's row of the table."""
        return find_backbone(self.backbone)

    @property
    def variant(self) -> Variant:
        """Latent space of the backbone."""
        variants: dict[Family, Variant] = {"unet": "sd", "pixart": "sdxl", "sd3": "sd3"}
        return variants[self.row.family]

    @property
    def rendering_snr_gamma(self) -> float | None:
        """1 for PixArt, as the released weights were trained."""
        return 1.0 if self.row.family == "pixart" else None

    def open(self, folders: StageFolders, _autoencoder: Autoencoder, image: bool, /) -> Denoiser:
        """The denoiser of an earlier run, or else of the 2D model."""
        row = self.row
        if folders.start_from is not None:
            return _opened(folders.start_from, row.latent_channels, image=image)
        base = folders.pretrained_part(row.base_repository, row.base_denoiser)
        return _opened(base, row.latent_channels, image=image)

    def objective(self, folders: StageFolders, image: bool, /) -> Objective:
        """Noise or v at uniform timesteps of the model's schedule; of Stable Diffusion 3.5, the flow."""
        prediction = self._prediction(image=image)
        if prediction == "flow":
            return Objective("flow", ShiftedFlowSteps())
        weight = None if self.min_snr is None else MinSnrWeight(self.min_snr)
        return Objective(prediction, UniformTimesteps.from_scheduler(self._schedule(folders)), weight)

    def scheduler(self, folders: StageFolders, image: bool, /) -> Any:
        """The sampler that the released models use."""
        return make_scheduler(self.row.sampler, self._schedule(folders), self._prediction(image=image))

    def prompts(self, folders: StageFolders) -> PromptSource:
        """The text encoders of the 2D model."""
        from diffsplat.models.text.clip_t5_encoders import load_prompt_encoder

        base = self._base(folders)

        def make() -> PromptEncoder:
            device = caching_device()
            dtype = torch.bfloat16 if device.type == "cuda" else None
            return load_prompt_encoder(self.row.family, base, dtype=dtype).to(device)

        return PromptSource(make, base / "text_encoder")

    def image_encoder(self, folders: StageFolders) -> "AutoencoderKL":
        """The image autoencoder of the 2D model."""
        return open_image_encoder(folders.pretrained_part(self.row.base_repository, "vae"))

    def _prediction(self, *, image: bool) -> Prediction:
        return self.row.image_prediction if image else self.row.text_prediction

    def _schedule(self, folders: StageFolders) -> dict[str, Any]:
        return read_json(self._base(folders) / "scheduler" / "scheduler_config.json")

    def _base(self, folders: StageFolders) -> Path:
        return folders.pretrained_part(self.row.base_repository, "text_encoder").parent


def _opened(folder: Path, latent_channels: int, *, image: bool) -> Denoiser:
    """A stored denoiser in float32, its input widened for rays, and for the mask of an image.

    Raises:
        ValueError: for a denoiser of other latents, or one of images where one of text is asked for.
    """
    network = open_denoiser(find_network(folder))
    wanted = latent_channels + PLUCKER_CHANNELS + (1 if image else 0)
    taken, made = network.config["in_channels"], network.config["out_channels"] or latent_channels
    name, latents = f"channels of the denoiser in {str(folder)!r}", f"the {latent_channels} of the latents"
    # PixArt's also predicts variances.
    require(made in (latent_channels, 2 * latent_channels), f"the number of output {name}", made, latents)
    expected = f"at most {wanted}: {latents}, those of rays{' and of a mask' if image else ', and no image'}"
    require(taken <= wanted, f"the number of input {name}", taken, expected)
    if taken != wanted:
        widen_denoiser(network, latent_channels, image=image)
    return cast(Denoiser, network)
