"""Text, a picture or a control map to 3D Gaussian splats: encode, denoise the latents of four views, decode."""

import copy
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from torch import Tensor

from diffsplat.core import Cameras, Splats
from diffsplat.errors import InvalidInputError
from diffsplat.geometry import ring_cameras
from diffsplat.io.file_access import make_folder
from diffsplat.models.autocast import Precision, autocast
from diffsplat.models.mini_denoiser import denoised_channels, denoiser_rays
from diffsplat.models.multiview_attention import set_multiview_attention
from diffsplat.models.multiview_pixart import MultiViewPixArt
from diffsplat.models.text.sentence_encoder import TextEncoder
from diffsplat.models.text.stock_prompt_encoders import PromptEncoder, StoredPrompts
from diffsplat.pipelines.denoising_loop import Field, denoise, object_generators, object_noise
from diffsplat.pipelines.device_placement import Placement, stream_layers
from diffsplat.pipelines.generation import GenerationRequest, prompts_of
from diffsplat.pipelines.guidance import (
    Conditions,
    ControlOptions,
    GuidedDenoiser,
    Handover,
    attended_views,
    constant_guidance,
    triangle_guidance,
)
from diffsplat.pipelines.image_conditioning import Picture, control_views, image_latents, read_picture
from diffsplat.pipelines.splat_output import SplatOutput
from diffsplat.pipelines.surface_smoothing import clean_surfaces
from diffsplat.pretrained.catalogue import BACKBONES, ControlKind, Sampler
from diffsplat.pretrained.model_folders import (
    COMPONENT_FILES,
    SamplingDefaults,
    find_model,
    read_index,
    stored_components,
    write_index,
)
from diffsplat.pretrained.network_folders import save_half
from diffsplat.pretrained.schedulers import load_scheduler, make_scheduler

StepCallback = Callable[[int, int], None]
"""``(steps done, steps in all)``; raising from it stops the generation."""

_LONGEST_REASON = 240
_OPTIONAL = ("refiner", "image_encoder", "controlnet", "elevation_estimator")


@dataclass(frozen=True)
class Pictures:
    """What a generation is shown, each ``[3, S, S]`` sRGB 0..1 or absent.

    Args:
        image: the object from the first view, on white.
        control: control map of the first view.
    """

    image: Tensor | None = None
    control: Tensor | None = None


class DiffSplatPipeline:
    """Components that turn a prompt, a picture or a control map into splats; each may be replaced by assignment.

    Args:
        denoiser: stock network over the latents of all views; its self-attention is made to span them.
        autoencoder: decodes latents into splat grids.
        text_encoder: reads the prompt.
        scheduler: places the noise levels.
        defaults: steps, guidance and elevation for calls that do not give them, the smoothing of surfaces, and
            the noise level and guidance of the refiner.
        refiner: a second denoiser, for the noise levels below ``defaults.refined_below``, with a guidance scale of
            its own. None for none, also where the model has one.
        image_encoder: the image-diffusion model's own autoencoder, for denoisers that are shown a picture.
        controlnet: for control maps.
        elevation_estimator: finds the elevation that a picture was taken from.

    Raises:
        ValueError: for a refiner of other latents, without a level to take over at, with a guidance scale out of
            range, or of a model that predicts no flow.

    Attributes:
        precision: arithmetic of the denoiser; ``auto`` is bf16 where the device is faster in it, else fp32.
        objects_per_pass: how many objects are denoised at once. With 1 an object is bitwise the same whatever
            it is generated together with; more is faster on a GPU and differs by rounding.
    """

    def __init__(  # noqa: PLR0913  every component by name
        self,
        denoiser: Any,
        autoencoder: Any,
        text_encoder: PromptEncoder,
        scheduler: Any,
        defaults: SamplingDefaults | None = None,
        *,
        refiner: Any = None,
        image_encoder: Any = None,
        controlnet: Any = None,
        elevation_estimator: Any = None,
    ) -> None:
        self.denoiser = denoiser.eval()
        self.autoencoder = autoencoder.eval()
        self.text_encoder: Any = text_encoder
        self.scheduler = scheduler
        self.refiner = refiner
        self.image_encoder = image_encoder
        self.controlnet = controlnet
        self.elevation_estimator = elevation_estimator
        self.defaults = defaults or SamplingDefaults()
        if refiner is not None:
            _check_refined(denoiser, refiner, self.defaults)
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
            image: load the released denoiser that is shown a picture.
            control: load the released ControlNet of this kind.
            dtype: of a released model's networks; as stored by default.
            components: objects to use instead of stored ones, by the names of the constructor.

        Raises:
            ValueError: for an unknown model or component, or damaged weights.
            FileNotFoundError: when a file of the model is missing; the message says how to get it.
        """
        every = tuple(dict.fromkeys((*COMPONENT_FILES, *_OPTIONAL)))
        for name in components:
            if name not in every:
                known = ", ".join(every)
                raise InvalidInputError(f"unknown component {name!r}, expected one of: {known}")
        if isinstance(model, str) and model in BACKBONES:
            from diffsplat.pretrained.released_models import ReleasedModel, load_released

            chosen = ReleasedModel(
                BACKBONES[model], image=image, control=control, weights=weights, dtype=dtype
            )
            return cls(**load_released(chosen, components))
        if image or control:
            raise InvalidInputError(
                f"the model {str(model)!r} is shown no pictures, expected one of: {', '.join(BACKBONES)}"
            )
        folder = find_model(model)
        index = read_index(folder, components)
        loaded = {
            name: _load_component(name, folder / name) for name in stored_components(index) - set(components)
        }
        return cls(**loaded, **components, defaults=SamplingDefaults.from_index(index))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a model folder that :meth:`from_pretrained` reads: fp16 safetensors, 8-bit text encoder.

        Raises:
            ValueError: for a model with the text encoder of an image-diffusion model, which has its own layout.
        """
        if not isinstance(self.text_encoder, TextEncoder):
            raise InvalidInputError(
                f"a {type(self.text_encoder).__name__} does not belong into a model folder, expected a TextEncoder"
            )
        target = Path(folder)
        make_folder(target)
        save_half(self.denoiser, target / "denoiser")
        if self.refiner is not None:
            save_half(self.refiner, target / "refiner")
        save_half(self.autoencoder, target / "autoencoder")
        self.text_encoder.save_pretrained(target / "text_encoder")
        self.scheduler.save_pretrained(target / "scheduler")
        write_index(target, self.defaults, refiner=self.refiner is not None)

    @property
    def device(self) -> torch.device:
        """Device that is computed on."""
        return self._placement.device

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Shape ``(V, C, h, w)`` of what is denoised: all channels of the autoencoder's latents or its first."""
        views, channels, height, width = self.autoencoder.latent_shape
        return (views, min(channels, denoised_channels(self.denoiser.config)), height, width)

    @property
    def takes_image(self) -> bool:
        """Whether the denoiser is shown a picture."""
        return denoised_channels(self.denoiser.config) > self.autoencoder.latent_channels

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
        streamed = tuple(network for network in self._denoisers() if network is not None)
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

    def _networks(self) -> list[Any]:
        optional = [getattr(self, name) for name in _OPTIONAL]
        networks = [self.denoiser, self.autoencoder, self.text_encoder, *optional]
        return [network for network in networks if network is not None]

    def _denoisers(self) -> tuple[Any, Any, Any]:
        """The networks that work in every denoising step, or in some; None where there is no such one."""
        return self.denoiser, self.refiner, self.controlnet

    def __call__(  # noqa: PLR0913  every option of a generation, by keyword
        self,
        prompt: str | Sequence[str] = "",
        *,
        image: Picture | None = None,
        control: Picture | None = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        least_guidance: float = 1.0,
        negative_prompt: str = "",
        count: int = 1,
        elevation: float | None = None,
        sampler: Sampler | None = None,
        control_scale: float = 1.0,
        guess_mode: bool = False,
        shifted: bool = True,
        callback: StepCallback | None = None,
    ) -> SplatOutput:
        """Generate splats.

        Args:
            prompt: a description of an object, or several; may be empty with an image.
            image: picture of the object: a file, a PIL image, or ``[3, H, W]`` or ``[4, H, W]`` 0..1. Without
                transparency its background is removed.
            control: control map of the first view, likewise; composited on white.
            seed: seed of a prompt's first object; its next objects take the seeds that follow.
            steps: denoising steps; the model's default when None.
            guidance: classifier-free guidance scale, 1 or less for none; the model's default when None. With an
                image it is the scale of the opposite side, to which it rises from the side that is seen. A
                refiner has its own, ``defaults.refiner_guidance``.
            least_guidance: scale of the side that an image shows.
            negative_prompt: text to steer away from.
            count: objects of each prompt.
            elevation: degrees above the horizon of the generated views; when None it is estimated from the
                image, or else the model's default.
            sampler: by name; the model's when None.
            control_scale: factor of what the ControlNet adds.
            guess_mode: the ControlNet acts without guidance's unconditional half.
            shifted: shift an image's latents for SD3 as training did; the original's inference did not.
            callback: told about every denoising step; may raise to stop.

        Returns:
            ``len(prompts) * count`` objects, those of one prompt next to each other. The same prompt, seed
            and options give bitwise the same splats on the same machine.

        Raises:
            ValueError: for an empty or overlong prompt, an option outside its range, or a picture that the model
                has no use for.
        """
        pictures = self.prepare(image, control)
        defaults = self.defaults
        request = GenerationRequest(
            prompts=prompts_of(prompt),
            negative_prompt=negative_prompt,
            seed=seed,
            steps=defaults.steps if steps is None else steps,
            guidance=defaults.guidance if guidance is None else guidance,
            count=count,
            elevation_deg=self.choose_elevation(pictures) if elevation is None else elevation,
            from_image=image is not None,
            least_guidance=least_guidance,
            sampler=sampler,
            control_scale=control_scale,
            guess_mode=guess_mode,
            shifted=shifted,
        )
        return self.generate(request, pictures, callback)

    def prepare(self, image: Picture | None = None, control: Picture | None = None) -> Pictures:
        """Bring pictures to the model's size: the object cut out and centred on white, the control map resized.

        Raises:
            ValueError: when the model has no use for a picture, or lacks one.
        """
        if (image is not None) != self.takes_image:
            raise InvalidInputError(
                "this model generates from text alone, expected no image (the released models take one when "
                "they are loaded for it)"
                if image is not None
                else "this model generates from a picture, expected an image"
            )
        if (control is not None) != (self.controlnet is not None):
            raise InvalidInputError(
                "this model has no ControlNet, expected no control map"
                if control is not None
                else "this model has a ControlNet, expected a control map"
            )
        size = self.autoencoder.image_size
        return Pictures(
            image=None if image is None else read_picture(image, size, cut_out=True),
            control=None if control is None else read_picture(control, size, cut_out=False),
        )

    @torch.no_grad()
    def choose_elevation(self, pictures: Pictures) -> float:
        """Degrees above the horizon: estimated from an image, otherwise the model's default.

        Raises:
            ValueError: for an image when there is no estimator.
        """
        if pictures.image is None:
            return self.defaults.elevation_deg
        if self.elevation_estimator is None:
            raise InvalidInputError(
                "the elevation of the image is unknown, expected an elevation or its estimator"
            )
        with self._placement.awake(self.elevation_estimator):
            image = pictures.image[None].to(self.device)
            return float(self.elevation_estimator.degrees_above_horizon(image)[0])

    @torch.no_grad()
    def generate(
        self,
        request: GenerationRequest,
        pictures: Pictures | None = None,
        callback: StepCallback | None = None,
    ) -> SplatOutput:
        """Generate what a validated request asks for; see :meth:`__call__`.

        Args:
            request: what to generate.
            pictures: from :meth:`prepare`.
            callback: told about every denoising step; may raise to stop.
        """
        shown = pictures or Pictures()
        objects = request.objects
        size = max(1, self.objects_per_pass)
        passes = [objects[start : start + size] for start in range(0, len(objects), size)]
        cameras = ring_cameras(request.elevation_deg, size=self.autoencoder.image_size).to(self.device)
        shared = self._conditions(request, shown, cameras)
        progress = _Progress(callback, len(passes) * request.steps)
        parts = [self._one_pass(request, chunk, shared, cameras, progress) for chunk in passes]
        return SplatOutput(
            splats=_concatenate(parts),
            cameras=cameras.for_objects(len(objects)),
            prompts=tuple(prompt for prompt, _ in objects),
            seeds=tuple(seed for _, seed in objects),
        )

    def _conditions(self, request: GenerationRequest, shown: Pictures, cameras: Cameras) -> "_Shared":
        """What all objects of a request have in common; every network but the denoiser is done after this."""
        guides = request.guidance > 1
        texts = [*request.prompts, *([request.negative_prompt] if guides else [])]
        with self._placement.awake(self.text_encoder):
            prompts = StoredPrompts.encode(self.text_encoder, texts).to(self.device)
        latents = None
        if shown.image is not None:
            with self._placement.awake(self.image_encoder):
                image = shown.image[None].to(self.device)
                latents = image_latents(self.image_encoder, image, shifted=request.shifted)
        control = None
        if shown.control is not None:
            control = control_views(shown.control[None].to(self.device), self.autoencoder.views)
        rays = denoiser_rays(
            cameras.for_objects(1), self.autoencoder.latent_size, self.autoencoder.pixel_grid
        )
        return _Shared(prompts, rays, latents, control)

    def _one_pass(
        self,
        request: GenerationRequest,
        objects: tuple[tuple[str, int], ...],
        shared: "_Shared",
        cameras: Cameras,
        progress: "_Progress",
    ) -> Splats:
        """Splats ``[B, N]`` of the objects that are denoised together."""
        generators = object_generators(tuple(seed for _, seed in objects))
        noise = object_noise(self.latent_shape, generators).to(self.device)
        conditions = shared.for_objects(request, [prompt for prompt, _ in objects])
        with self._placement.awake(*self._denoisers()), autocast(self.device, self.precision):
            latents = denoise(
                self._field(request, conditions),
                noise,
                self._scheduler(request.sampler),
                request.steps,
                generators=generators,
                on_step=progress.advance,
            )
        with self._placement.awake(self.autoencoder):
            grid = self.autoencoder.decode(latents)
        seen, pixel_grid = cameras.for_objects(len(objects)), self.autoencoder.pixel_grid
        if self.defaults.smoothing:
            grid = clean_surfaces(grid, seen, self.defaults.smoothing, pixel_grid)
        return grid.to_splats(seen, pixel_grid)

    def _field(self, request: GenerationRequest, conditions: Conditions) -> Field:
        """What the sampler follows: the guided denoiser, and below the model's level the refiner."""
        guided = self._guided(request, conditions)
        if self.refiner is None:
            return guided
        _check_refined(self.denoiser, self.refiner, self.defaults)
        scale = self.defaults.refiner_guidance
        followed = conditions if scale > 1 else replace(conditions, negative=None)
        scales = constant_guidance(scale, self.autoencoder.views).to(self.device)
        refiner = GuidedDenoiser(self.refiner, followed, scales, self.defaults.prediction)
        return Handover(guided, refiner, self.defaults.refined_below)

    def _guided(self, request: GenerationRequest, conditions: Conditions) -> GuidedDenoiser:
        views, shown = self.autoencoder.views, conditions.image_latent is not None
        for network in self._denoisers():
            if network is not None:
                set_multiview_attention(network, attended_views(views, image=shown))
        least, most = request.least_guidance, request.guidance
        scales = triangle_guidance(least, most, views) if shown else constant_guidance(most, views)
        return GuidedDenoiser(
            self.denoiser,
            conditions,
            scales.to(self.device),
            self.defaults.prediction,
            controlnet=self.controlnet,
            control=ControlOptions(request.control_scale, request.guess_mode),
        )

    def _scheduler(self, sampler: Sampler | None) -> Any:
        """A scheduler of its own for every pass, because schedulers keep state."""
        if sampler is None:
            return copy.deepcopy(self.scheduler)
        return make_scheduler(sampler, self.scheduler.config, self.defaults.prediction)


@dataclass(frozen=True)
class _Shared:
    """Encoded prompts, and the conditions of one object without its text."""

    prompts: StoredPrompts
    rays: Tensor
    image_latent: Tensor | None
    control: Tensor | None

    def for_objects(self, request: GenerationRequest, texts: list[str]) -> Conditions:
        """Conditions of ``B`` objects with these texts."""
        count = len(texts)
        negative = self.prompts([request.negative_prompt] * count) if request.guidance > 1 else None
        one = Conditions(self.rays, self.prompts(texts), negative)
        return replace(
            one,
            rays=self.rays.expand(count, -1, -1, -1, -1),
            image_latent=_repeated(self.image_latent, count),
            control=_repeated(self.control, count),
        )


class _Progress:
    """Counts denoising steps over all passes."""

    def __init__(self, callback: StepCallback | None, total: int) -> None:
        self._callback = callback
        self._total = total
        self._done = 0

    def advance(self) -> None:
        self._done += 1
        if self._callback is not None:
            self._callback(self._done, self._total)


def _check_refined(denoiser: Any, refiner: Any, defaults: SamplingDefaults) -> None:
    """Refuse a refiner of other latents than the denoiser's, and sampling defaults that it cannot work with."""
    for name in ("in_channels", "caption_channels"):
        expected, found = (network.config[name] for network in (denoiser, refiner))
        if found != expected:
            raise InvalidInputError(
                f"the refiner has {found} {name}, expected the {expected} of the denoiser"
            )
    if not 0 < defaults.refined_below <= 1:
        raise InvalidInputError(
            f"refined_below is {defaults.refined_below}, expected a noise level above 0, at most 1"
        )
    if not 0 <= defaults.refiner_guidance < inf:
        raise InvalidInputError(
            f"refiner_guidance is {defaults.refiner_guidance}, expected a finite number of at least 0"
        )
    if defaults.prediction not in ("latents", "flow"):
        raise InvalidInputError(
            f"the prediction is {defaults.prediction!r}, expected 'latents' or 'flow': others have no such noise "
            "level for a refiner"
        )


def _load_component(name: str, folder: Path) -> Any:
    try:
        return _read_component(name, folder)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        reason = textwrap.shorten(str(error), _LONGEST_REASON)
        raise InvalidInputError(f"the model's {name} in {str(folder)!r} cannot be read: {reason}") from error


def _read_component(name: str, folder: Path) -> Any:
    from diffsplat.pretrained.network_folders import load_network

    match name:
        case "text_encoder":
            return TextEncoder.from_pretrained(folder).eval()
        case "scheduler":
            return load_scheduler(folder)
        case "denoiser" | "refiner":
            return load_network(MultiViewPixArt, folder)
        case _:
            from diffsplat.models.component_autoencoder import ComponentAutoencoder

            return load_network(ComponentAutoencoder, folder)


def _repeated(tensor: Tensor | None, count: int) -> Tensor | None:
    return None if tensor is None else tensor.expand(count, *[-1] * (tensor.ndim - 1))


def _concatenate(parts: list[Splats]) -> Splats:
    """Join sets ``[B, N]`` along the objects."""
    fields = ("means", "scales", "quats", "opacities", "colors")
    return Splats(**{name: torch.cat([getattr(part, name) for part in parts]) for name in fields})
