"""LoRA files of image-diffusion models on the multi-view network (Hu et al. 2022)."""

import logging
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from diffsplat.errors import InvalidInputError, optional_package
from diffsplat.io.file_access import require_readable
from diffsplat.models.network_families import network_family

logger = logging.getLogger(__name__)


def load_lora(network: Any, path: str | Path, scale: float = 1.0) -> int:
    """Add the UNet's part of a Stable Diffusion LoRA file to a multi-view UNet, in place.

    Its layers are those of the stock UNet, so that a file trained on images applies to every view. What the
    file holds for the text encoder is left out.

    Args:
        network: ``UNet2DConditionModel``.
        path: safetensors file, in the format of diffusers or of kohya.
        scale: strength; 0 changes nothing.

    Returns:
        Number of layers that got weights.

    Raises:
        ValueError: when the network is no UNet, or the file holds nothing for it.
        ModuleNotFoundError: without the package ``peft``.
    """
    if network_family(network) != "unet":
        raise InvalidInputError(
            f"LoRA files apply to the UNet of Stable Diffusion, not to a {type(network).__name__}"
        )
    file = require_readable(path)
    with optional_package("a LoRA file", "peft", "lora"):
        import peft  # noqa: F401
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    try:
        stored = load_file(file)
    except SafetensorError as error:
        raise InvalidInputError(f"{str(path)!r} is not a safetensors file: {error}") from error
    state, alphas = StableDiffusionPipeline.lora_state_dict(stored, unet_config=network.config)[:2]
    own = {name: weight for name, weight in state.items() if not name.startswith("text_encoder")}
    if not own:
        raise InvalidInputError(
            f"{str(path)!r} holds no weights for a UNet, expected a LoRA file of Stable Diffusion 1.5"
        )
    if len(own) < len(state):
        logger.warning("%s also changes the text encoder; that part is left out", file.name)
    adapter = f"lora{len(getattr(network, 'peft_config', {}))}"
    try:
        StableDiffusionPipeline.load_lora_into_unet(own, alphas, network, adapter_name=adapter)
    except (RuntimeError, KeyError) as error:
        raise InvalidInputError(
            f"{str(path)!r} does not fit this UNet: {str(error).splitlines()[0]}"
        ) from error
    _set_scale(network, adapter, scale)
    return sum(name.endswith("lora_A.weight") or name.endswith("down.weight") for name in own)


def _set_scale(network: Any, adapter: str, scale: float) -> None:
    """Make an adapter active, and keep those that were loaded before."""
    weights = dict(getattr(network, "_diffsplat_lora_scales", {}))
    weights[adapter] = scale
    network._diffsplat_lora_scales = weights
    network.set_adapters(list(weights), list(weights.values()))
