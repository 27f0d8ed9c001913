"""Text, an image or a control map to 3D Gaussian splats: encode, denoise the latents of four views, decode."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from diffsplat.core import Cameras, Splats
from diffsplat.data.trained_words import TrainedWords
from diffsplat.errors import InvalidInputError
from diffsplat.geometry import ring_cameras
from diffsplat.images.framing_options import ImageFraming
from diffsplat.models.autocast import Precision, autocast
from diffsplat.models.mini_denoiser import PLUCKER_CHANNELS, denoised_channels, denoiser_rays
from diffsplat.models.multiview_attention import set_multiview_attention
from diffsplat.models.text.quantized_sentence_encoder import TextEncoder as SentenceTextEncoder
from diffsplat.models.text.stored_prompts import StoredPrompts
from diffsplat.pipelines.denoising_loop import Field, denoise, object_generators, object_noise
from diffsplat.pipelines.device_placement import Placement, stream_layers
from diffsplat.pipelines.generation_options import Generation, ResolvedGeneration
from diffsplat.pipelines.guidance import (
    Conditions,
    ControlOptions,
    GuidedDenoiser,
    Handover,
    attended_views,
    check_refiner,
    constant_guidance,
    triangle_guidance,
)
from diffsplat.pipelines.image_and_control_conditions import (
    ConditionImages,
    ImageSource,
    condition_image,
    control_views,
    image_latents,
)
from diffsplat.pipelines.known_words import KnownWords
from diffsplat.pipelines.pipeline_folders import load_components, save_components
from diffsplat.pipelines.pipeline_protocols import (
    Autoencoder,
    Denoiser,
    Movable,
    Scheduler,
    TextEncoder,
)
from diffsplat.pipelines.splat_output import SplatOutput
from diffsplat.pipelines.surface_smoothing import clean_surfaces
from diffsplat.pretrained.backbones import BACKBONES, ControlKind, Sampler
from diffsplat.pretrained.model_folders import SamplingDefaults, find_model
from diffsplat.pretrained.schedulers import make_scheduler

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from diffsplat.models.condition_encoder import ConditionEncoder
    from diffsplat.models.elevation_network import ElevationEstimator

StepCallback = Callable[[int, int], object]
"""``(steps done, steps in all)``; raising from it stops the generation."""

COMPONENTS = (
    *("denoiser", "autoencoder", "text_encoder", "scheduler"),
    *("refiner", "image_encoder", "condition_encoder", "controlnet", "elevation_estimator"),
)


class DiffSplatPipeline:
    """Components that turn a prompt, an image or a control map into splats; each may be replaced by assignment.

    Args:
        denoiser: stock network over the latents of all views; its self-attention is made to span them.
        autoencoder: decodes latents into splat grids.
        text_encoder: encodes the prompt.
        scheduler: places the noise levels.
        defaults: steps, guidance and elevation for calls that do not give them, the smoothing of surfaces, and
            the noise level and guidance of the refiner.
        refiner: a second denoiser, for the noise levels below ``defaults.refined_below``, with a guidance scale of
            its own. None for none, also where the model has one.
        image_encoder: the image-diffusion model's own autoencoder, for denoisers with a condition image.
        condition_encoder: encodes images and control maps for one denoiser that takes both.
        controlnet: for control maps.
        elevation_estimator: estimates the elevation that an image was taken from.
        control_kind: kind of control map that the ControlNet, or a denoiser with a condition encoder, follows.
        image_defaults: like ``defaults``, for calls with an image or a control map; by default the same.

    Raises:
        ValueError: for a refiner of other latents, without a level to take over at, with a guidance scale out of
            range, or of a model that predicts no flow.

    Attributes:
        known_words: what the model was trained on, where its folder says.
        precision: arithmetic of the denoiser; ``auto`` is bf16 where the device is faster in it, else fp32.
        objects_per_pass: how many objects are denoised at once. With 1 an object is bitwise the same whatever
            it is generated together with; more is faster on a GPU and differs by rounding.
    """

    def __init__(  # noqa: PLR0913  every component by name
        self,
        denoiser: Denoiser,
        autoencoder: Autoencoder,
        text_encoder: TextEncoder,
        scheduler: Scheduler,
        defaults: SamplingDefaults | None = None,
        *,
        refiner: Denoiser | None = None,
        image_encoder: "AutoencoderKL | None" = None,
        condition_encoder: "ConditionEncoder | None" = None,
        controlnet: Denoiser | None = None,
        elevation_estimator: "ElevationEstimator | None" = None,
        control_kind: ControlKind | None = None,
        image_defaults: SamplingDefaults | None = None,
    ) -> None:
        self.denoiser = denoiser.eval()
        self.autoencoder = autoencoder.eval()
        self.text_encoder = text_encoder
        self.scheduler = scheduler
        self.refiner = refiner
        self.image_encoder = image_encoder
        self.condition_encoder = condition_encoder
        self.controlnet = controlnet
        self.elevation_estimator = elevation_estimator
        self.control_kind: ControlKind | None = control_kind
        self.defaults = defaults or SamplingDefaults()
        self.image_defaults = image_defaults
        if refiner is not None:
            check_refiner(denoiser, refiner, self.defaults)
        self.known_words: KnownWords | None = None
        self.precision: Precision = "auto"
        self.objects_per_pass = 1
        self._placement = Placement(denoiser.device)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "mini",
        *,
        weights: str | Path | None = None,
        image: bool = False,
        control: ControlKind | None = None,
        dtype: torch.dtype | None = None,
        **components: Any,
    ) -> Self:
        """Load the embedded model, a model folder, or a released model, on the CPU.

        Args:
            model: ``mini``, path of a model folder, or name of a released backbone (``sd15``, ``pixart-sigma``,
                ``sd35m``).
            weights: folder of the released weights; where ``diffsplat models download`` puts them by default.
            image: load the denoiser that is conditioned on an image. A folder without another loads it anyway.
            control: load the ControlNet of this kind.
            dtype: of the networks of diffusers; as stored by default, those of a model folder in float32.
            components: objects to use instead of stored ones, by the names of the constructor.

        Raises:
            ValueError: for an unknown model, variant or component, or damaged weights.
            FileNotFoundError: when a file of the model is missing; the message says how to get it.
        """
        for name in components:
            if name not in COMPONENTS:
                known = ", ".join(COMPONENTS)
                raise InvalidInputError(f"unknown component {name!r}, expected one of: {known}")
        if isinstance(model, str) and model in BACKBONES:
            from diffsplat.pretrained.released_models import ReleasedModel, load_released

            chosen = ReleasedModel(
                BACKBONES[model], image=image, control=control, weights=weights, dtype=dtype
            )
            return cls(**load_released(chosen, components))
        pipe = cls(**load_components(model, components, image=image, control=control, dtype=dtype))
        words = TrainedWords.from_folder(find_model(model))
        if words is not None and isinstance(pipe.text_encoder, SentenceTextEncoder):
            pipe.known_words = KnownWords(words, pipe.text_encoder)
        return pipe

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a model folder that :meth:`from_pretrained` reads, its networks in half precision.

        Raises:
            ValueError: for a component that could not be read again, such as a denoiser with LoRA files.
        """
        components = {name: getattr(self, name) for name in COMPONENTS}
        text = None if self.needs_image else self.defaults
        image = self.defaults_for(conditioned=True) if self.takes_image else None
        control = None if self.controlnet is None else self.control_kind
        save_components(Path(folder), components, text, image, control=control)
        if self.known_words is not None:
            self.known_words.words.save(Path(folder))

    @property
    def device(self) -> torch.device:
        """Device that computes."""
        return self._placement.device

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Shape ``(V, C, h, w)`` of what is denoised: all channels of the autoencoder's latents or its first."""
        views, channels, height, width = self.autoencoder.latent_shape
        return (views, min(channels, denoised_channels(self.denoiser.config)), height, width)

    @property
    def needs_image(self) -> bool:
        """Whether it generates from an image only."""
        _, channels, _, _ = self.latent_shape
        return int(self.denoiser.config["in_channels"]) == channels + PLUCKER_CHANNELS + 1

    @property
    def takes_image(self) -> bool:
        """Whether it generates from an image."""
        return self.needs_image or self.condition_encoder is not None

    @property
    def takes_control(self) -> bool:
        """Whether it follows a control map."""
        own = self.condition_encoder is not None and self.control_kind is not None
        return own or self.controlnet is not None

    def to(self, device: str | torch.device) -> Self:
        """Move every network to a device, in place."""
        for network in self._networks():
            network.to(device)
        self._placement = Placement(torch.device(device))
        return self

    def enable_model_cpu_offload(self, device: str | torch.device = "cuda") -> None:
        """Keep networks on the CPU and bring each to the device only while it is used.

        Args:
            device: where they compute.
        """
        self.to("cpu")
        self._placement = Placement(torch.device(device), offload=True)

    def enable_sequential_cpu_offload(self, device: str | torch.device = "cuda") -> None:
        """Like :meth:`enable_model_cpu_offload`, and of the denoisers and ControlNet only a layer at a time.

        Slowest and smallest: the device holds little more than one layer.
        """
        self.enable_model_cpu_offload(device)
        streamed = self._denoisers()
        for network in streamed:
            stream_layers(network, torch.device(device))
        self._placement = Placement(torch.device(device), offload=True, streamed=streamed)

    def place(self, device: torch.device, *, low_memory: bool = False) -> Self:
        """Put the networks where they compute, in place.

        Args:
            device: where.
            low_memory: on a GPU, :meth:`enable_sequential_cpu_offload`.
        """
        if low_memory and device.type == "cuda":
            self.enable_sequential_cpu_offload(device)
            return self
        return self.to(device)

    def load_lora(self, path: str | Path, scale: float = 1.0) -> int:
        """Add a Stable Diffusion LoRA file to the denoiser; see :func:`diffsplat.pipelines.lora.load_lora`."""
        from diffsplat.pipelines.lora import load_lora

        return load_lora(self.denoiser, path, scale)

    def _networks(self) -> list[Movable]:
        present = (getattr(self, name) for name in COMPONENTS if name != "scheduler")
        return [network for network in present if network is not None]

    def _denoisers(self) -> tuple[Denoiser, ...]:
        """The networks that work in every denoising step, or in some."""
        networks = (self.denoiser, self.refiner, self.controlnet)
        return tuple(network for network in networks if network is not None)

    def __call__(
        self,
        prompt: str | Sequence[str] = "",
        *,
        image: ImageSource | None = None,
        control: ImageSource | None = None,
        framing: ImageFraming | None = None,
        callback: StepCallback | None = None,
        **options: Any,
    ) -> SplatOutput:
        """Generate splats.

        Args:
            prompt: a description of an object, or several; may be empty with an image.
            image: photo or drawing of the object: a file, a PIL image, or ``[3, H, W]`` or ``[4, H, W]`` 0..1.
                Without transparency its background is removed.
            control: control map of the first view, likewise; composited on white.
            framing: how the object is cut out of its image and framed.
            callback: called after every denoising step; may raise to stop.
            options: any other field of :class:`~diffsplat.pipelines.generation_options.Generation`, such as ``seed``,
                ``steps``, ``guidance`` or ``count``.

        Returns:
            ``len(prompts) * count`` objects, those of one prompt next to each other. The same prompt, seed
            and options give bitwise the same splats on the same machine.

        Raises:
            ValueError: for an empty or overlong prompt, an option outside its range, or an image that the model
                has no use for.
        """
        prompts = (prompt,) if isinstance(prompt, str) else tuple(prompt)
        generation = Generation(prompts=prompts, **options)
        return self.generate(generation, self.prepare(image, control, framing), callback)

    def prepare(
        self,
        image: ImageSource | None = None,
        control: ImageSource | None = None,
        framing: ImageFraming | None = None,
    ) -> ConditionImages:
        """Bring images to the model's size: the object cut out and centred on white, the control map resized.

        Raises:
            ValueError: when the model has no use for an image, or lacks one.
        """
        if image is not None and not self.takes_image:
            raise InvalidInputError("this model takes no image, expected none")
        if image is None and self.needs_image:
            raise InvalidInputError("this model generates from an image, expected an image")
        if control is not None and not self.takes_control:
            raise InvalidInputError("this model follows no control map, expected none")
        if control is None and self.controlnet is not None:
            raise InvalidInputError("this model has a ControlNet, expected a control map")
        if image is not None and control is not None and self.condition_encoder is not None:
            raise InvalidInputError("this model takes an image or a control map, expected one of them")
        size = self.autoencoder.image_size
        return ConditionImages(
            image=None if image is None else condition_image(image, size, cut_out=True, framing=framing),
            control=None if control is None else condition_image(control, size, cut_out=False),
        )

    @torch.no_grad()
    def resolve(self, generation: Generation, images: ConditionImages | None = None) -> ResolvedGeneration:
        """Fill in the model's defaults, and estimate the elevation of an image unless it is given.

        Raises:
            ValueError: without a prompt and an image.
        """
        image = images.image if images else None
        defaults = self.defaults_for(conditioned=images is not None and images.given)
        resolved = generation.resolved(defaults, from_image=image is not None)
        if image is None or resolved.elevation is not None or self.elevation_estimator is None:
            return resolved
        with self._placement.on_device(self.elevation_estimator):
            degrees = self.elevation_estimator.degrees_above_horizon(image[None].to(self.device))
        return replace(resolved, elevation=float(degrees[0]))

    @torch.no_grad()
    def generate(
        self,
        generation: Generation,
        images: ConditionImages | None = None,
        callback: StepCallback | None = None,
    ) -> SplatOutput:
        """Generate splats; see :meth:`__call__`.

        Args:
            generation: the options.
            images: from :meth:`prepare`.
            callback: called after every denoising step; may raise to stop.
        """
        resolved = self.resolve(generation, images)
        cameras = ring_cameras(resolved.elevation_deg, size=self.autoencoder.image_size).to(self.device)
        objects, size = resolved.objects, max(1, self.objects_per_pass)
        passes = [objects[start : start + size] for start in range(0, len(objects), size)]
        shared = self._shared_conditions(resolved, images or ConditionImages(), cameras)
        done, total = count(1), len(passes) * resolved.steps

        def advance() -> None:
            if callback is not None:
                callback(next(done), total)

        parts = [self._one_pass(resolved, chunk, shared, cameras, advance) for chunk in passes]
        notices = {} if images and images.image is not None else self.notices(resolved.prompts)
        return SplatOutput(Splats.concatenate(parts), cameras.for_objects(len(objects)), resolved, notices)

    def notices(self, prompts: Sequence[str]) -> dict[str, str]:
        """By prompt, one sentence for each that the model was trained on nothing like; needs ``known_words``."""
        if self.known_words is None:
            return {}
        with self._placement.on_device(self.text_encoder):
            found = {prompt: self.known_words.notice(prompt) for prompt in prompts}
        return {prompt: notice for prompt, notice in found.items() if notice is not None}

    def _shared_conditions(
        self, generation: ResolvedGeneration, images: ConditionImages, cameras: Cameras
    ) -> "_SharedConditions":
        """Conditions of all objects; every network but the denoisers and the decoder is done after this."""
        with self._placement.on_device(self.text_encoder):
            prompts = StoredPrompts.encode(self.text_encoder, generation.texts).to(self.device)
        views, control = self.autoencoder.views, None
        if images.control is not None and self.controlnet is not None:
            control = control_views(images.control[None].to(self.device), views)
        rays = denoiser_rays(
            cameras.for_objects(1), self.autoencoder.latent_size, self.autoencoder.pixel_grid
        )
        least, most = generation.least_guidance, generation.guidance
        from_image = images.image is not None
        return _SharedConditions(
            prompts,
            rays,
            self._condition_view(images, shifted=not generation.unshifted),
            control,
            triangle_guidance(least, most, views) if from_image else constant_guidance(most, views),
            self.defaults_for(conditioned=images.given),
        )

    def _condition_view(self, images: ConditionImages, *, shifted: bool) -> Tensor | None:
        """``[1, C, h, w]`` latents of the image, or of the control map of a denoiser that takes both."""
        if self.condition_encoder is not None:
            kind = "image" if images.image is not None else self.control_kind
            image = images.control if images.image is None else images.image
            if image is None or kind is None:
                return None
            with self._placement.on_device(self.condition_encoder):
                return self.condition_encoder.encode(image[None].to(self.device), kind)
        if images.image is None:
            return None
        if self.image_encoder is None:
            raise InvalidInputError("the pipeline has no image encoder, expected one for an image")
        with self._placement.on_device(self.image_encoder):
            return image_latents(self.image_encoder, images.image[None].to(self.device), shifted=shifted)

    def defaults_for(self, *, conditioned: bool) -> SamplingDefaults:
        """How the model is sampled with, or without, an image or a control map."""
        return (self.image_defaults if conditioned else None) or self.defaults

    def _one_pass(
        self,
        generation: ResolvedGeneration,
        objects: tuple[tuple[str, int], ...],
        shared: "_SharedConditions",
        cameras: Cameras,
        on_step: Callable[[], None],
    ) -> Splats:
        """Splats ``[B, N]`` of the objects that are denoised together."""
        generators = object_generators(tuple(seed for _, seed in objects))
        noise = object_noise(self.latent_shape, generators).to(self.device)
        conditions = shared.for_objects(generation, [prompt for prompt, _ in objects])
        defaults = shared.defaults
        with self._placement.on_device(*self._denoisers()), autocast(self.device, self.precision):
            latents = denoise(
                self._field(generation, conditions, shared),
                noise,
                self._scheduler(generation.sampler),
                generation.steps,
                generators=generators,
                on_step=on_step,
            )
        with self._placement.on_device(self.autoencoder):
            grid = self.autoencoder.decode(latents)
        views, pixel_grid = cameras.for_objects(len(objects)), self.autoencoder.pixel_grid
        if defaults.smoothing:
            grid = clean_surfaces(grid, views, defaults.smoothing, pixel_grid)
        return grid.to_splats(views, pixel_grid)

    def _field(
        self, generation: ResolvedGeneration, conditions: Conditions, shared: "_SharedConditions"
    ) -> Field:
        """The prediction that the sampler follows: the guided denoiser, and below the model's level the refiner."""
        defaults, views = shared.defaults, self.autoencoder.views
        for network in self._denoisers():
            set_multiview_attention(network, attended_views(views, image=conditions.image_latent is not None))
        guided = GuidedDenoiser(
            self.denoiser,
            conditions,
            shared.guidance.to(self.device),
            defaults.prediction,
            controlnet=self.controlnet,
            control=ControlOptions(generation.control_scale, generation.guess_mode),
        )
        unrefined = conditions.image_latent is not None and not defaults.refined_below
        if self.refiner is None or unrefined:
            return guided
        check_refiner(self.denoiser, self.refiner, defaults)
        followed = conditions if defaults.refiner_guidance > 1 else replace(conditions, negative=None)
        scales = constant_guidance(defaults.refiner_guidance, views).to(self.device)
        refiner = GuidedDenoiser(self.refiner, followed, scales, defaults.prediction)
        return Handover(guided, refiner, defaults.refined_below)

    def _scheduler(self, sampler: Sampler | None) -> Scheduler:
        """A scheduler of its own for every pass, because schedulers keep state."""
        if sampler is None:
            return copy.deepcopy(self.scheduler)
        return make_scheduler(sampler, self.scheduler.config, self.defaults.prediction)


@dataclass(frozen=True)
class _SharedConditions:
    """Encoded prompts, the conditions of one object without its text, and how it is sampled.

    Args:
        guidance: ``[V]`` scale of each view.
        defaults: of the model, with or without an image.
    """

    prompts: StoredPrompts
    rays: Tensor
    image_latent: Tensor | None
    control: Tensor | None
    guidance: Tensor
    defaults: SamplingDefaults

    def for_objects(self, generation: ResolvedGeneration, texts: list[str]) -> Conditions:
        """Conditions of ``B`` objects with these texts."""
        number = len(texts)

        def repeated(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.expand(number, *tensor.shape[1:])

        return Conditions(
            rays=self.rays.expand(number, *self.rays.shape[1:]),
            text=self.prompts(texts),
            negative=self.prompts([generation.negative_prompt] * number) if generation.guided else None,
            image_latent=repeated(self.image_latent),
            control=repeated(self.control),
        )
