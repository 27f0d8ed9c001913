"""Images as prompts of a UNet, through an IP-Adapter (Ye et al. 2023, "IP-Adapter")."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diffsplat.errors import InvalidInputError, explained_errors
from diffsplat.io.file_access import require_readable
from diffsplat.models.denoiser_families import network_family, uncompiled

_CLIP_MEAN, _CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ImagePromptAdapter:
    """Adds an IP-Adapter to the denoiser, and encodes its images.

    Attributes:
        image_prompt_encoder: ``CLIPVisionModelWithProjection`` of the adapter; None without one.
    """

    denoiser: Any
    image_prompt_encoder: Any = None

    def load_ip_adapter(
        self, file: str | Path, *, encoder: str | Path | None = None, scale: float = 1.0
    ) -> None:
        """Add an IP-Adapter to the denoiser, before it is compiled or moved; calls take ``ip_adapter_image`` then.

        Args:
            file: safetensors file for Stable Diffusion 1.5, plain or "plus"; not those of face recognition.
            encoder: folder of its CLIP image encoder; ``image_encoder`` next to the file by default.
            scale: strength; 0 changes nothing.

        Raises:
            ValueError: when the denoiser is no UNet, or a file is missing, damaged, or another.
        """
        from transformers import CLIPVisionModelWithProjection

        network, path = uncompiled(self.denoiser), require_readable(file)
        if network_family(network) != "unet":
            raise InvalidInputError(f"a {type(network).__name__} takes no IP-Adapter, expected sd15")
        folder = Path(encoder) if encoder else path.parent / "image_encoder"
        require_readable(folder / "config.json")
        parts = _stored_parts(path)
        self.unload_ip_adapter()  # diffusers rebuilds the attention, without arguments
        try:
            network._load_ip_adapter_weights([parts], low_cpu_mem_usage=False)
        except (RuntimeError, KeyError) as error:
            self.unload_ip_adapter()
            reason = str(error).splitlines()[0]
            raise InvalidInputError(f"{str(path)!r} does not fit the denoiser: {reason}") from error
        vision = CLIPVisionModelWithProjection.from_pretrained(folder, local_files_only=True)
        self.image_prompt_encoder = vision.eval()
        self.set_ip_adapter_scale(scale)

    def set_ip_adapter_scale(self, scale: float) -> None:
        """Strength of the adapter; 0 changes nothing."""
        for processor in uncompiled(self.denoiser).attn_processors.values():
            if hasattr(processor, "to_k_ip"):
                processor.scale = [scale]

    def unload_ip_adapter(self) -> None:
        """Take the adapter out."""
        from diffusers.models.attention_processor import AttnProcessor2_0

        network = uncompiled(self.denoiser)
        network.set_attn_processor(AttnProcessor2_0())
        network.encoder_hid_proj = None
        network.config.encoder_hid_dim_type = None
        self.image_prompt_encoder = None

    def _image_features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """What the adapter takes of an image ``[1, 3, S, S]`` 0..1, and what guidance steers away from."""
        mean, deviation = (image.new_tensor(values).view(3, 1, 1) for values in (_CLIP_MEAN, _CLIP_DEVIATION))
        encoder = self.image_prompt_encoder
        pixels = ((image - mean) / deviation).to(encoder.dtype)
        (projection,) = uncompiled(self.denoiser).encoder_hid_proj.image_projection_layers
        if hasattr(projection, "image_embeds"):
            features = encoder(pixels).image_embeds
            return features, torch.zeros_like(features)
        both = encoder(torch.cat([pixels, torch.zeros_like(pixels)]), output_hidden_states=True)
        features, without = both.hidden_states[-2].split(1)
        return features, without


def _stored_parts(file: Path) -> dict[str, dict[str, Tensor]]:
    """The two groups of weights of a file, ``image_proj`` and ``ip_adapter``."""
    with explained_errors(f"{str(file)!r} is not a safetensors file", SafetensorError):
        stored = load_file(file)
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, value in stored.items():
        part, _, name = key.partition(".")
        parts.setdefault(part, {})[name] = value
    projection = parts["image_proj"]
    if not parts["ip_adapter"] or not ("proj.weight" in projection or "latents" in projection):
        raise InvalidInputError(f"{str(file)!r} holds no IP-Adapter, plain or plus, expected one of sd15")
    return parts
