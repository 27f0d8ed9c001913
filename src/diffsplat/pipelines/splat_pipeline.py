"""Text to 3D Gaussian splats: encode the prompt, denoise splat latents of four views, decode."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, cast

import torch
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from safetensors import SafetensorError
from torch import Tensor, nn

import diffsplat
from diffsplat.core import Cameras, Splats
from diffsplat.geometry import ring_cameras
from diffsplat.models.denoiser import denoiser_rays, predict_velocity
from diffsplat.models.gsvae import GSAutoencoder
from diffsplat.models.multiview import set_multiview_attention
from diffsplat.models.precision import Precision, autocast
from diffsplat.models.text import TextEmbedding, TextEncoder
from diffsplat.models.weights import load_network, save_half
from diffsplat.pipelines.folders import (
    COMPONENT_FILES,
    SamplingDefaults,
    find_model,
    read_index,
    write_index,
)
from diffsplat.pipelines.output import SplatOutput
from diffsplat.pipelines.request import GenerationRequest, prompts_of
from diffsplat.pipelines.sampling import guided, integrate, object_noise

StepCallback = Callable[[int, int], None]
"""``(steps done, steps in all)``; raising from it stops the generation."""

_LONGEST_REASON = 240


class DiffSplatPipeline:
    """Components that turn a prompt into splats; each may be replaced by assignment.

    Args:
        denoiser: predicts the velocity of latents; its self-attention is made to span the views.
        autoencoder: decodes latents into splat grids.
        text_encoder: reads the prompt.
        scheduler: places the noise levels.
        defaults: steps, guidance and elevation for calls that do not give them.

    Attributes:
        precision: arithmetic of the denoiser; ``auto`` is bf16 where the device computes in it, else fp32.
        objects_per_pass: how many objects are denoised at once. With 1 an object is bitwise the same whatever
            it is generated together with; more is faster on a GPU and differs by rounding.
    """

    def __init__(
        self,
        denoiser: PixArtTransformer2DModel,
        autoencoder: GSAutoencoder,
        text_encoder: TextEncoder,
        scheduler: FlowMatchEulerDiscreteScheduler,
        defaults: SamplingDefaults | None = None,
    ) -> None:
        self.denoiser = denoiser.eval()
        self.autoencoder = autoencoder.eval()
        self.text_encoder = text_encoder.eval()
        self.scheduler = scheduler
        self.defaults = defaults or SamplingDefaults()
        self.precision: Precision = "auto"
        self.objects_per_pass = 1

    @classmethod
    def from_pretrained(cls, model: str | Path = "mini", **components: Any) -> Self:
        """Load an embedded model or a model folder, in float32 on the CPU.

        Args:
            model: name of an embedded model (``mini``) or path of a folder.
            components: objects to use instead of the stored ``denoiser``, ``autoencoder``, ``text_encoder``
                or ``scheduler``.

        Raises:
            ValueError: for an unknown model or component.
            FileNotFoundError: when a file of the model is missing.
        """
        for name in components:
            if name not in COMPONENT_FILES:
                raise ValueError(f"unknown component {name!r}, expected one of: {', '.join(COMPONENT_FILES)}")
        folder = find_model(model)
        missing = set(COMPONENT_FILES) - set(components)
        index = read_index(folder, missing)
        loaded = {name: _load_component(name, folder / name) for name in missing}
        return cls(**loaded, **components, defaults=SamplingDefaults.from_index(index))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a model folder that :meth:`from_pretrained` reads: fp16 safetensors, 8-bit text encoder."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        save_half(self.denoiser, target / "denoiser")
        save_half(self.autoencoder, target / "autoencoder")
        self.text_encoder.save_pretrained(target / "text_encoder")
        self.scheduler.save_pretrained(target / "scheduler")
        write_index(target, diffsplat.__version__, self.defaults)

    @property
    def device(self) -> torch.device:
        """Device of the denoiser."""
        return self.denoiser.device

    def to(self, device: str | torch.device) -> Self:
        """Move every network to a device, in place."""
        for network in (self.denoiser, self.autoencoder, self.text_encoder):
            cast(nn.Module, network).to(device)
        return self

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        negative_prompt: str = "",
        count: int = 1,
        elevation: float | None = None,
        callback: StepCallback | None = None,
    ) -> SplatOutput:
        """Generate splats.

        Args:
            prompt: a description of an object, or several.
            seed: seed of a prompt's first object; its next objects take the seeds that follow.
            steps: denoising steps; the model's default when None.
            guidance: classifier-free guidance scale, 1 or less for none; the model's default when None.
            negative_prompt: text to steer away from.
            count: objects of each prompt.
            elevation: degrees above the horizon of the generated views; the model's default when None.
            callback: told about every denoising step; may raise to stop.

        Returns:
            ``len(prompts) * count`` objects, those of one prompt next to each other. The same prompt, seed
            and options give bitwise the same splats on the same machine.

        Raises:
            ValueError: for an empty or overlong prompt or an option outside its range.
        """
        defaults = self.defaults
        request = GenerationRequest(
            prompts=prompts_of(prompt),
            negative_prompt=negative_prompt,
            seed=seed,
            steps=defaults.steps if steps is None else steps,
            guidance=defaults.guidance if guidance is None else guidance,
            count=count,
            elevation_deg=defaults.elevation_deg if elevation is None else elevation,
        )
        return self.generate(request, callback)

    @torch.no_grad()
    def generate(self, request: GenerationRequest, callback: StepCallback | None = None) -> SplatOutput:
        """Generate what a validated request asks for; see :meth:`__call__`."""
        set_multiview_attention(self.denoiser, self.autoencoder.views)
        objects = request.objects
        passes = [
            objects[start : start + self.objects_per_pass]
            for start in range(0, len(objects), self.objects_per_pass)
        ]
        cameras = ring_cameras(request.elevation_deg, size=self.autoencoder.image_size)
        cameras = cameras.to(self.device)
        progress = _Progress(callback, len(passes) * request.steps)
        parts = [self._one_pass(request, chunk, cameras, progress) for chunk in passes]
        return SplatOutput(
            splats=_concatenate(parts),
            cameras=cameras.for_objects(len(objects)),
            prompts=tuple(prompt for prompt, _ in objects),
            seeds=tuple(seed for _, seed in objects),
        )

    def _one_pass(
        self,
        request: GenerationRequest,
        objects: tuple[tuple[str, int], ...],
        cameras: Cameras,
        progress: "_Progress",
    ) -> Splats:
        """Splats ``[B, N]`` of the objects that are denoised together."""
        noise = object_noise(self.autoencoder.latent_shape, tuple(seed for _, seed in objects))
        texts = [prompt for prompt, _ in objects]
        use_guidance = request.guidance > 1
        if use_guidance:
            texts = [request.negative_prompt] * len(objects) + texts
        text = self.encode_text(texts)
        rays = denoiser_rays(cameras.for_objects(1), self.autoencoder.latent_size).expand(
            len(texts), -1, -1, -1, -1
        )

        def velocity(latents: Tensor, level: Tensor) -> Tensor:
            with autocast(self.device, self.precision):
                return predict_velocity(self.denoiser, latents, level, (text.tokens, text.mask), rays)

        field = guided(velocity, request.guidance) if use_guidance else velocity
        latents = integrate(field, noise.to(self.device), self.scheduler, request.steps, progress.advance)
        return self.autoencoder.decode(latents).to_splats(cameras.for_objects(len(objects)))

    def encode_text(self, texts: list[str]) -> TextEmbedding:
        """Embed texts one at a time, so that none depends on the others through rounding."""
        unique = {text: self.text_encoder([text]) for text in texts}
        return TextEmbedding(
            tokens=torch.cat([unique[text].tokens for text in texts]),
            mask=torch.cat([unique[text].mask for text in texts]),
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


def _load_component(name: str, folder: Path) -> Any:
    try:
        return _read_component(name, folder)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        reason = textwrap.shorten(str(error), _LONGEST_REASON)
        raise ValueError(f"the model's {name} in {str(folder)!r} cannot be read: {reason}") from error


def _read_component(name: str, folder: Path) -> Any:
    match name:
        case "text_encoder":
            return TextEncoder.from_pretrained(folder)
        case "scheduler":
            return FlowMatchEulerDiscreteScheduler.from_pretrained(folder)
        case "denoiser":
            return load_network(PixArtTransformer2DModel, folder)
        case _:
            return load_network(GSAutoencoder, folder)


def _concatenate(parts: list[Splats]) -> Splats:
    """Join sets ``[B, N]`` along the objects."""
    fields = ("means", "scales", "quats", "opacities", "colors")
    return Splats(**{name: torch.cat([getattr(part, name) for part in parts]) for name in fields})
