"""LoRA files (Hu et al. 2022) on a denoiser, by the methods that pipelines of diffusers have."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diffsplat.errors import InvalidInputError, explained_errors, optional_package
from diffsplat.io.file_access import require_readable
from diffsplat.models.denoiser_families import network_family, uncompiled

logger = logging.getLogger(__name__)

_PREFIXES = {"unet": "unet.", "pixart": "transformer.", "sd3": "transformer."}
_TEXT_ENCODERS = ("text_encoder.", "text_encoder_2.", "text_encoder_3.")


class LoraAdapters:
    """Loads LoRA files into the denoiser, weighs them, merges them into its weights, and takes them out."""

    denoiser: Any

    def load_lora_weights(
        self, path: str | Path, adapter_name: str | None = None, *, scale: float = 1.0
    ) -> int:
        """Add a LoRA file to the denoiser and use it, with those that were loaded before.

        Args:
            path: safetensors file for the image-diffusion model that the denoiser was trained from, in the format of
                diffusers or peft, for a UNet also of kohya.
            adapter_name: by which it is weighed later; ``lora0``, ``lora1``, ... by default.
            scale: strength; 0 changes nothing.

        Returns:
            Number of layers that got weights.

        Raises:
            ValueError: when the denoiser is not a network of diffusers, the name is taken, or nothing in the file fits.
            ModuleNotFoundError: without the package ``peft``.
        """
        scales = self.lora_scales
        name = adapter_name or f"lora{len(scales)}"
        count = _load_lora(uncompiled(self.denoiser), path, name)
        self._use({**scales, name: scale})
        return count

    @property
    def lora_scales(self) -> dict[str, float]:
        """Scale of every adapter."""
        return dict(getattr(uncompiled(self.denoiser), "_diffsplat_lora_scales", {}))

    def set_adapters(self, adapter_names: str | Sequence[str], adapter_weights: Any = 1.0) -> None:
        """Use some adapters, with one scale for all or one for each; the others are not used.

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
        """Refuse names that no adapter has.

        Raises:
            ValueError: naming the first of them.
        """
        known = ", ".join(self.lora_scales) or "none"
        for name in names:
            if name not in self.lora_scales:
                raise InvalidInputError(f"there is no adapter {name[:60]!r}, expected one of: {known}")

    @contextmanager
    def adapters_scaled(self, scales: Mapping[str, float] | None) -> Iterator[None]:
        """Use adapters with these scales, and no others, inside the block; None changes nothing."""
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
        names = self.lora_scales
        for layer in _tuned_layers(uncompiled(self.denoiser)):
            layer.merge(adapter_names=[name for name in names if name in layer.scaling])
        self.unload_lora_weights()

    def unload_lora_weights(self) -> None:
        """Take out every adapter that was not merged."""
        network = uncompiled(self.denoiser)
        _remove_all_lora(network)
        network._diffsplat_lora_scales = {}

    def _use(self, scales: dict[str, float]) -> None:
        if not scales:
            return
        network = uncompiled(self.denoiser)
        for layer in _tuned_layers(network):
            present = [name for name in scales if name in layer.scaling]
            layer.set_adapter(present)
            for name in present:
                layer.set_scale(name, scales[name])
        network._diffsplat_lora_scales = scales


def _load_lora(network: Any, path: str | Path, name: str) -> int:
    """Add a LoRA file to a multi-view network, in place; the number of layers that got weights.

    Its layers are those of the stock network, so that a file trained on images applies to every view. What the
    file holds for text encoders is left out.
    """
    if network_family(network) not in _PREFIXES:
        raise InvalidInputError(f"LoRA files apply to diffusers networks, not to a {type(network).__name__}")
    file = require_readable(path)
    if name in getattr(network, "peft_config", {}) or not name.isidentifier():
        raise InvalidInputError(f"the adapter is called {name!r}, expected a free name without dots")
    with optional_package("a LoRA file", "peft", "lora"):
        from peft import inject_adapter_in_model, set_peft_model_state_dict

    state, alphas = _stored_adapter(network, file)
    ranks = {
        key.removesuffix(".lora_B.weight"): weight.shape[1]
        for key, weight in state.items()
        if key.endswith(".lora_B.weight")
    }
    config = _lora_config(ranks, alphas)
    present = vars(network).pop("peft_config", {})  # peft warns where it finds one
    try:
        inject_adapter_in_model(config, network, adapter_name=name)
        network.peft_config = {**present, name: config}
        result = set_peft_model_state_dict(network, state, adapter_name=name)
    except (RuntimeError, ValueError, KeyError) as error:
        network.peft_config = {**present, name: config}
        _remove_lora(network, name)
        raise InvalidInputError(f"{str(path)!r} does not fit: {str(error).splitlines()[0]}") from error
    if unknown := list(getattr(result, "unexpected_keys", ())):
        _remove_lora(network, name)
        raise InvalidInputError(f"{str(path)!r} does not fit: the network has no layer for {unknown[0]!r}")
    return len(ranks)


def _lora_config(ranks: Mapping[str, int], alphas: Mapping[str, float]) -> Any:
    """Configuration of peft for layers of different ranks; their alphas are the ranks where there are none."""
    from peft import LoraConfig

    (rank, _), *_ = Counter(ranks.values()).most_common(1)
    return LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules="|".join(map(re.escape, ranks)),
        rank_pattern={f"^{re.escape(layer)}": value for layer, value in ranks.items()},
        alpha_pattern={f"^{re.escape(layer)}": alphas.get(layer, value) for layer, value in ranks.items()},
    )


def _remove_lora(network: Any, name: str) -> None:
    """Take out one adapter, perhaps half loaded."""
    for layer in _tuned_layers(network):
        layer.delete_adapter(name)
    remaining = {key: value for key, value in getattr(network, "peft_config", {}).items() if key != name}
    if remaining:
        network.peft_config = remaining
    else:
        _remove_all_lora(network)


def _remove_all_lora(network: Any) -> None:
    """Take out every adapter; the network is a stock one again."""
    from diffusers.utils.peft_utils import recurse_remove_peft_layers

    recurse_remove_peft_layers(network)
    if hasattr(network, "peft_config"):
        del network.peft_config


def _tuned_layers(network: Any) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in network.modules() if isinstance(module, BaseTunerLayer)]


def _stored_adapter(network: Any, file: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The network's part of a file by peft's names, and the alphas of layers that have one."""
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    with explained_errors(f"{str(file)!r} is not a safetensors file", SafetensorError):
        stored = load_file(file)
    family = network_family(network)
    prefix = _PREFIXES[family]
    state, alphas = _by_names_of_diffusers(network, stored)
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if own and "lora_A" not in next(iter(own)):
        own = convert_unet_state_dict_to_peft(own)
    if not any(key.endswith(".lora_B.weight") for key in own):
        raise InvalidInputError(
            f"{str(file)!r} holds no weights for a {type(network).__name__}, expected a LoRA file of its model"
        )
    if any(key.startswith(_TEXT_ENCODERS) for key in state):
        logger.warning("%s also changes the text encoder; that part is left out", file.name)
    of_layers = {key.removeprefix(prefix).removesuffix(".alpha"): value for key, value in alphas.items()}
    named = convert_unet_state_dict_to_peft(of_layers)  # attention layers have other names
    return own, {key.removesuffix(".lora_A.weight"): float(value) for key, value in named.items()}


def _by_names_of_diffusers(network: Any, stored: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A file's weights with the prefixes of diffusers, and its alphas."""
    stored = {key.replace("base_model.model.", "transformer.", 1): value for key, value in stored.items()}
    match network_family(network):
        case "unet":
            from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin

            found = StableDiffusionLoraLoaderMixin.lora_state_dict(stored, unet_config=network.config)
            return found[0], found[1] or {}
        case "sd3":
            from diffusers.loaders.lora_pipeline import SD3LoraLoaderMixin

            state: Any = SD3LoraLoaderMixin.lora_state_dict(stored)
            return state, {}
        case _:
            return stored, {}
