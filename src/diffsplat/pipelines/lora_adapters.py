"""LoRA files on a pipeline's denoiser, by the methods that pipelines of diffusers have."""

from pathlib import Path
from typing import Any

from diffsplat.models.network_families import uncompiled


class LoraAdapters:
    """Loads LoRA files into the denoiser, weighs them, merges them into its weights, and takes them out."""

    denoiser: Any

    def load_lora(self, path: str | Path, scale: float = 1.0) -> int:
        """Add a Stable Diffusion LoRA file to the denoiser; see :func:`diffsplat.pipelines.lora.load_lora`."""
        from diffsplat.pipelines.lora import load_lora

        return load_lora(uncompiled(self.denoiser), path, scale)
