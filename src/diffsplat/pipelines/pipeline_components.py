"""The components of a pipeline: access by name, devices and types, memory saving, LoRA files."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

import torch

from diffsplat.models.autocast import Precision
from diffsplat.models.denoiser_families import uncompiled
from diffsplat.pipelines.device_placement import Placement, device_and_dtype, stream_layers
from diffsplat.pipelines.guidance import check_refiner, check_same_latents
from diffsplat.pipelines.image_prompt_adapter import ImagePromptAdapter
from diffsplat.pipelines.lora_adapters import LoraAdapters
from diffsplat.pipelines.pipeline_interfaces import Autoencoder, Denoiser, Movable, Scheduler, TextEncoder
from diffsplat.pipelines.weight_quantization import QuantizedType, quantize_components
from diffsplat.pretrained.model_folders import SamplingDefaults
from diffsplat.pretrained.release_catalogue import ControlKind

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from diffsplat.models.condition_encoder import ConditionEncoder
    from diffsplat.models.elevation_network import ElevationEstimator
    from diffsplat.models.few_step_solver import FewStepSolver

_KEEP_FLOAT32 = (
    *("ComponentAutoencoder", "ConditionEncoder", "TextEncoder", "StoredPrompts"),
    *("ElevationEstimator", "MiniElevationEstimator", "FewStepSolver"),
)
"""Classes of small components that always compute in float32."""


@dataclass(eq=False)
class PipelineComponents(LoraAdapters, ImagePromptAdapter):
    """Components of a pipeline by their names; each may be replaced by assignment.

    Args:
        denoiser: stock network over the latents of all views; its self-attention is made to span them. It may be
            one that ``torch.compile`` returned.
        autoencoder: decodes latents into splat grids.
        text_encoder: encodes the prompt; None for calls with encoded prompts.
        scheduler: places the noise levels; any of diffusers that expects what the denoiser predicts.
        defaults: steps, guidance and elevation for calls that do not give them, the smoothing of surfaces, and
            the noise level and guidance of the refiner.
        refiner: a second denoiser, for the noise levels below ``defaults.refined_below``, with a guidance scale of
            its own. None for none, also where the model has one.
        text_denoiser: takes the denoiser's place for prompts whose nouns are all among its own, by the pipeline's
            ``known_words``. Not for encoded prompts, nor with LoRA files, which the denoiser has.
        few_step_solver: takes its few steps for text, where neither guidance, sampler nor places of the steps are
            given. It belongs to this denoiser and refiner at the guidance of ``defaults``; text_denoiser has it too.
        image_encoder: the image-diffusion model's own autoencoder, for denoisers with a condition image.
        condition_encoder: encodes images and control maps for one denoiser that takes both.
        controlnet: for control maps, also with an image; a ``ModuleList`` of several follows as many at once.
        elevation_estimator: estimates the elevation that an image was taken from.
        control_kind: kind of control map that the ControlNet, or a denoiser with a condition encoder, follows.
        image_defaults: like ``defaults``, for calls with an image or a control map; by default the same.

    Raises:
        ValueError: for a refiner or a denoiser of text of other latents, a refiner without a level to take over at,
            with a guidance scale out of range, or of a model that predicts no flow.

    Attributes:
        precision: arithmetic of the denoiser; ``auto`` is bf16 where the device is faster in it and the weights are
            not float16, else that of the weights.
    """

    denoiser: Denoiser
    autoencoder: Autoencoder
    text_encoder: TextEncoder | None
    scheduler: Scheduler
    defaults: SamplingDefaults = field(default_factory=SamplingDefaults)
    _: KW_ONLY
    refiner: Denoiser | None = None
    text_denoiser: Denoiser | None = None
    few_step_solver: "FewStepSolver | None" = None
    image_encoder: "AutoencoderKL | None" = None
    condition_encoder: "ConditionEncoder | None" = None
    controlnet: Denoiser | None = None
    elevation_estimator: "ElevationEstimator | None" = None
    control_kind: ControlKind | None = None
    image_defaults: SamplingDefaults | None = None

    def __post_init__(self) -> None:
        self.denoiser.eval()
        self.autoencoder.eval()
        if self.refiner is not None:
            check_refiner(self.denoiser, self.refiner, self.defaults)
        if self.text_denoiser is not None:
            check_same_latents("text denoiser", self.denoiser, self.text_denoiser)
        self.precision: Precision = "auto"
        self._placement = Placement(self.denoiser.device)

    @property
    def components(self) -> dict[str, Any]:
        """Arguments of the constructor, for another pipeline of the same networks."""
        return {argument.name: getattr(self, argument.name) for argument in fields(self)}

    @property
    def device(self) -> torch.device:
        """Device that computes."""
        return self._placement.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the denoiser's weights."""
        return uncompiled(self.denoiser).dtype

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} on {self.device}"]
        for name in COMPONENTS:
            component = getattr(self, name)
            if component is not None:
                lines.append(f"  {name}: {_described(component)}")
        return "\n".join(lines)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move every network, change the type of the weights, or both, in place: the arguments of ``Module.to``.

        Principal components, sentence encoder and elevation network stay in float32.

        Raises:
            ValueError: for a device that is not there, or a type that is not of floating point; nothing was moved.
        """
        device, dtype = device_and_dtype(*args, **kwargs)
        for network in self._networks():
            if dtype is not None and type(uncompiled(network)).__name__ not in _KEEP_FLOAT32:
                network.to(dtype)
            if device is not None:
                network.to(device)
        if device is not None:
            self._placement = Placement(device)
        return self

    def quantize(self, kind: QuantizedType = "int8") -> Self:
        """Store the weights of denoisers and text encoders in eight or four bits; see :func:`quantize_components`."""
        quantize_components(self.components, kind)
        return self

    def enable_model_cpu_offload(self, device: str | torch.device = "cuda") -> None:
        """Keep networks on the CPU and bring each to the device that computes only while it is used."""
        self.to("cpu")
        self._placement = Placement(torch.device(device), offload=True)

    def enable_sequential_cpu_offload(self, device: str | torch.device = "cuda") -> None:
        """Like :meth:`enable_model_cpu_offload`, and of the denoisers and ControlNet only a layer at a time.

        Slowest and smallest: the device holds little more than one layer.
        """
        self.enable_model_cpu_offload(device)
        streamed = self._denoisers_of(self.denoiser, self.text_denoiser)
        for network in streamed:
            stream_layers(network, torch.device(device))
        self._placement = Placement(torch.device(device), offload=True, streamed=streamed)

    def place(self, device: torch.device, *, low_memory: bool = False) -> Self:
        """Put the networks on the device that computes, in place.

        On a GPU, ``low_memory`` means :meth:`enable_sequential_cpu_offload`.
        """
        if low_memory and device.type == "cuda":
            self.enable_sequential_cpu_offload(device)
            return self
        return self.to(device)

    def _networks(self) -> list[Movable]:
        names = (*COMPONENTS, "image_prompt_encoder")
        present = (getattr(self, name) for name in names if name != "scheduler")
        return [network for network in present if network is not None]

    def _denoisers_of(self, *denoisers: Denoiser | None) -> tuple[Denoiser, ...]:
        """The networks that work in denoising steps, with these denoisers."""
        networks = (*denoisers, self.refiner, self.controlnet)
        return tuple(network for network in networks if network is not None)


COMPONENTS = tuple(
    argument.name
    for argument in fields(PipelineComponents)
    if argument.name not in ("defaults", "image_defaults", "control_kind")
)
"""Names of the networks and the scheduler, each of which may be given to ``from_pretrained``."""


def _described(component: Any) -> str:
    """Class of a component, and of a network its size, type and device."""
    network = uncompiled(component)
    name = type(network).__name__ + (" (compiled)" if network is not component else "")
    if not isinstance(network, torch.nn.Module):
        config: Any = getattr(network, "config", None)
        kind = config.get("prediction_type") if isinstance(config, Mapping) else None
        return f"{name}, {kind}" if kind else name
    tensors = [*network.parameters(), *network.buffers()]
    weights = [(_count(tensor), _weight_type(tensor)) for tensor in tensors]
    kinds = sorted({kind for count, kind in weights if count})
    devices = sorted({str(tensor.device) for tensor in tensors})
    total = sum(count for count, _ in weights)
    return f"{name}, {_in_words(total)} weights, {'/'.join(kinds)}, {'/'.join(devices)}"


def _count(tensor: Any) -> int:
    """Weights in a tensor, of which bitsandbytes packs two into a byte."""
    state = getattr(tensor, "quant_state", None)
    if state is not None:
        return state.shape.numel()
    return tensor.numel() if tensor.is_floating_point() else 0


def _weight_type(tensor: Any) -> str:
    """Type that weights are stored in: ``float32``, ``int8`` (torchao), ``nf4`` (bitsandbytes)."""
    state = getattr(tensor, "quant_state", None)
    stored = getattr(tensor, "qdata", tensor)
    return str(stored.dtype).removeprefix("torch.") if state is None else state.quant_type


def _in_words(count: int) -> str:
    for size, name in ((10**9, "billion"), (10**6, "million")):
        if count >= size:
            return f"{count / size:.3g} {name}"
    return f"{count:,}"
