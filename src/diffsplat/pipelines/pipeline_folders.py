"""Components of a pipeline, read from model folders and written to them."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import make_folder
from diffsplat.models.multiview_pixart import MultiViewPixArt
from diffsplat.models.text.quantized_sentence_encoder import TextEncoder
from diffsplat.pretrained.model_folders import (
    SamplingDefaults,
    find_model,
    read_index,
    stored_components,
    write_index,
)
from diffsplat.pretrained.schedulers import load_scheduler

_LONGEST_REASON = 240


def load_components(model: str | Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Components and sampling defaults of the embedded model or a model folder.

    Args:
        model: name or folder.
        given: components that the caller brings; they are not read.

    Raises:
        ValueError: for an unknown model, or a file that is damaged.
        FileNotFoundError: when a file is missing.
    """
    folder = find_model(model)
    index = read_index(folder, given)
    stored = stored_components(index) - set(given)
    return {
        "defaults": SamplingDefaults.from_index(index),
        **{name: _load_component(name, folder / name) for name in stored},
        **given,
    }


def save_components(folder: Path, components: Mapping[str, Any], defaults: SamplingDefaults) -> None:
    """Write a model folder: fp16 safetensors, 8-bit text encoder.

    Raises:
        ValueError: for the text encoder of an image-diffusion model, which has its own layout.
    """
    text_encoder, scheduler = components["text_encoder"], components["scheduler"]
    if not isinstance(text_encoder, TextEncoder):
        raise InvalidInputError(
            f"a {type(text_encoder).__name__} does not belong into a model folder, expected a TextEncoder"
        )
    make_folder(folder)
    for name in ("denoiser", "refiner", "autoencoder"):
        if components[name] is not None:
            components[name].save_pretrained(folder / name, half=True)
    text_encoder.save_pretrained(folder / "text_encoder")
    scheduler.save_pretrained(folder / "scheduler")
    refiner = components["refiner"] is not None
    write_index(folder, defaults, refiner=refiner)


def _load_component(name: str, folder: Path) -> Any:
    try:
        return _read_component(name, folder)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        reason = textwrap.shorten(str(error), _LONGEST_REASON)
        raise InvalidInputError(f"the model's {name} in {str(folder)!r} cannot be read: {reason}") from error


def _read_component(name: str, folder: Path) -> Any:
    match name:
        case "text_encoder":
            return TextEncoder.from_pretrained(folder).eval()
        case "scheduler":
            return load_scheduler(folder)
        case "denoiser" | "refiner":
            return MultiViewPixArt.from_pretrained(folder)
        case _:
            from diffsplat.models.principal_component_autoencoder import ComponentAutoencoder

            return ComponentAutoencoder.from_pretrained(folder)
