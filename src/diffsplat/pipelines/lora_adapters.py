"""LoRA files on a pipeline's denoiser, by the methods that pipelines of diffusers have."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffsplat.errors import InvalidInputError
from diffsplat.models.network_families import uncompiled


class LoraAdapters:
    """Loads LoRA files into the denoiser, weighs them, merges them into its weights, and takes them out."""

    denoiser: Any

    def load_lora_weights(
        self, path: str | Path, adapter_name: str | None = None, *, scale: float = 1.0
    ) -> int:
        """Add a LoRA file to the denoiser and use it, with those that were loaded before.

        Args:
            path: safetensors file for the image-diffusion model that the denoiser was trained from.
            adapter_name: by which it is weighed later; ``lora0``, ``lora1``, ... by default.
            scale: strength; 0 changes nothing.

        Returns:
            Number of layers that got weights.

        Raises:
            ValueError: when the denoiser is no network of diffusers, or the file holds nothing for it.
            ModuleNotFoundError: without the package ``peft``.
        """
        from diffsplat.pipelines.lora import load_lora

        scales = self.lora_scales
        name = adapter_name or f"lora{len(scales)}"
        count = load_lora(uncompiled(self.denoiser), path, name)
        self._use({**scales, name: scale})
        return count

    @property
    def lora_scales(self) -> dict[str, float]:
        """Scale of every adapter."""
        return dict(getattr(uncompiled(self.denoiser), "_diffsplat_lora_scales", {}))

    def set_adapters(self, adapter_names: str | Sequence[str], adapter_weights: Any = 1.0) -> None:
        """Use some adapters, each with its scale; the others are not used.

        Args:
            adapter_names: one or several.
            adapter_weights: their scales; one for all, or one for each.

        Raises:
            ValueError: for an unknown name, or a wrong number of scales.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        given = isinstance(adapter_weights, Sequence)
        weights = list(adapter_weights) if given else [adapter_weights] * len(names)
        self.require_adapters(names)
        if len(weights) != len(names):
            raise InvalidInputError(f"{len(weights)} scales were given for {len(names)} adapters")
        self._use({**dict.fromkeys(self.lora_scales, 0.0), **dict(zip(names, weights, strict=True))})

    def require_adapters(self, names: Iterable[str]) -> None:
        """Make sure that there are such adapters.

        Raises:
            ValueError: for an unknown name.
        """
        known = ", ".join(self.lora_scales) or "none"
        for name in names:
            if name not in self.lora_scales:
                raise InvalidInputError(f"there is no adapter {name[:60]!r}, expected one of: {known}")

    @contextmanager
    def adapters_scaled(self, scales: Mapping[str, float] | None) -> Iterator[None]:
        """Use adapters with these scales, and no others, inside the block; None changes nothing.

        Raises:
            ValueError: for an unknown name.
        """
        if scales is None:
            yield
            return
        before = self.lora_scales
        self.set_adapters(list(scales), list(scales.values()))
        try:
            yield
        finally:
            self._use(before)

    def fuse_lora(self) -> None:
        """Merge every adapter with its scale into the weights: as fast as without, and the model can be saved."""
        from diffsplat.pipelines.lora import merge_lora

        network = uncompiled(self.denoiser)
        merge_lora(network, list(self.lora_scales))
        network._diffsplat_lora_scales = {}

    def unload_lora_weights(self) -> None:
        """Take out every adapter that was not merged."""
        from diffsplat.pipelines.lora import remove_all_lora

        network = uncompiled(self.denoiser)
        remove_all_lora(network)
        network._diffsplat_lora_scales = {}

    def _use(self, scales: dict[str, float]) -> None:
        if not scales:
            return
        from diffsplat.pipelines.lora import scale_lora

        network = uncompiled(self.denoiser)
        scale_lora(network, scales)
        network._diffsplat_lora_scales = scales
