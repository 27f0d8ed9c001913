"""Components of a pipeline, read from model folders and written to them."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import give_usual_permissions, make_folder
from diffsplat.models.condition_encoder import ConditionEncoder
from diffsplat.models.few_step_solver import FewStepSolver
from diffsplat.models.text.quantized_sentence_encoder import TextEncoder
from diffsplat.pretrained.model_folders import (
    FEW_STEP_SOLVER,
    TEXT_DENOISER,
    ModelFolder,
    SamplingDefaults,
    controlnet_folder,
    write_index,
)
from diffsplat.pretrained.network_folders import (
    joined_controlnets,
    open_autoencoder,
    open_denoiser,
    open_elevation_estimator,
    open_image_encoder,
    save_network,
    stored_class,
)
from diffsplat.pretrained.release_catalogue import ControlKind, Prediction, only_kind
from diffsplat.pretrained.released_networks import load_controlnet
from diffsplat.pretrained.schedulers import load_scheduler, require_known_scheduler

_LONGEST_REASON = 240
_TEXT_ENCODERS = ("TextEncoder", "ClipT5Encoder")
_FITTED_TO = {
    FEW_STEP_SOLVER: {"denoiser", "refiner", "scheduler"},
    TEXT_DENOISER: {"denoiser", "autoencoder", "text_encoder"},
}
"""Components without which one of a model has no place."""


def load_components(
    model: str | Path,
    given: Mapping[str, Any],
    *,
    image: bool = False,
    controls: Sequence[ControlKind] = (),
    dtype: torch.dtype | None = None,
) -> dict[str, Any]:
    """Components and sampling defaults of the embedded model or a model folder.

    Args:
        model: name or folder.
        given: components that the caller brings; they are not read, nor are those that were fitted to the ones in
            their place.
        image: those that generate from an image.
        controls: those that follow control maps of these kinds.
        dtype: of the networks of diffusers; by default text encoders are as stored, the others in float32.

    Raises:
        ValueError: for an unknown model or variant, or a file that is damaged.
        FileNotFoundError: when a file is missing.
    """
    stored = ModelFolder.find(model)
    parts = stored.parts(image=image, controls=controls)
    unfit = {name for name, others in _FITTED_TO.items() if given.keys() & others}
    left_out = unfit | given.keys()
    wanted = {name: part for name, part in parts.items() if _reader(name) not in left_out}
    stored.require_files(wanted.values())
    defaults = stored.defaults(image=image)
    components: dict[str, Any] = {"defaults": defaults, "control_kind": only_kind(controls), **given}
    if stored.takes_every_condition:
        components |= {"defaults": stored.defaults(), "image_defaults": stored.defaults(image=True)}
    readers = _readers(dtype, defaults.prediction, components)
    controlnets: list[Any] = []
    for name, part in wanted.items():  # a ControlNet comes after its denoiser
        component = _explained(name, part, readers[_reader(name)])
        if _reader(name) == "controlnet":
            controlnets.append(component)
        else:
            components[name] = component
    return components | ({"controlnet": joined_controlnets(controlnets)} if controlnets else {})


def load_text_encoder(folder: Path, *, dtype: torch.dtype | None = None) -> Any:
    """The text encoder of a folder, its weights as stored by default; that of the embedded model always has float32.

    Raises:
        OSError, ValueError: when a file is missing or damaged.
    """
    if stored_class(folder) == TextEncoder.__name__:
        return TextEncoder.from_pretrained(folder).eval()
    from diffsplat.models.text.clip_t5_encoders import ClipT5Encoder

    return ClipT5Encoder.from_pretrained(folder, dtype=dtype)


def save_components(
    folder: Path,
    components: Mapping[str, Any],
    defaults: SamplingDefaults | None,
    image_defaults: SamplingDefaults | None = None,
    *,
    control: ControlKind | None = None,
) -> None:
    """Write a model folder: networks as safetensors in half precision, text encoders as they are.

    Args:
        folder: of the model.
        components: by the names of the pipeline; None where there is none.
        defaults: how the model is sampled from text; None when it generates from images only.
        image_defaults: how it is sampled from an image; None when it takes none.
        control: kind of control map that the ControlNet follows.

    Raises:
        ValueError: for a component that could not be read again.
    """
    present = {name: component for name, component in components.items() if component is not None}
    if isinstance(present.get("controlnet"), nn.ModuleList):
        raise InvalidInputError("the pipeline has several ControlNets, expected one to store at a time")
    if "controlnet" in present and control is None:
        raise InvalidInputError("control_kind is None, expected the kind of the ControlNet's control map")
    for name, component in present.items():
        _require_storable(name, component)
    names = {"denoiser": "image_denoiser"} if defaults is None else {}
    names |= {"controlnet": controlnet_folder(control)} if control else {}
    make_folder(folder)
    for name, component in present.items():
        _save_component(name, component, folder / names.get(name, name))
    written = [names.get(name, name) for name in present]
    write_index(folder, written, defaults, image_defaults)
    give_usual_permissions(folder)


def _require_storable(name: str, component: Any) -> None:
    kind = type(component).__name__
    match name:
        case "text_encoder" if kind not in _TEXT_ENCODERS:
            raise InvalidInputError(
                f"a {kind} does not belong into a model folder, expected one of: {', '.join(_TEXT_ENCODERS)}"
            )
        case "scheduler":
            require_known_scheduler(component.config.get("_class_name", kind))
        case _ if getattr(component, "peft_config", None):
            raise InvalidInputError(f"the {name} has LoRA layers, expected one without them")
        case _ if getattr(component, "encoder_hid_proj", None) is not None:
            raise InvalidInputError(f"the {name} has an IP-Adapter, expected one without it")
        case _:
            pass


def _save_component(name: str, component: Any, folder: Path) -> None:
    match name:
        case "scheduler" | "text_encoder":
            component.save_pretrained(folder)
        case "elevation_estimator":
            component.save_pretrained(folder, half=True)
        case _:
            save_network(component, folder)


def _explained(name: str, folder: Path, read: Callable[[Path], Any]) -> Any:
    """Read a component; what goes wrong names its folder."""
    try:
        return read(folder)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        reason = textwrap.shorten(str(error), _LONGEST_REASON)
        raise InvalidInputError(f"the model's {name} in {str(folder)!r} cannot be read: {reason}") from error


def _reader(name: str) -> str:
    """Name of the component that a folder holds: there is a ControlNet for each kind of map."""
    return name.partition("-")[0]


def _readers(
    stored_dtype: torch.dtype | None, prediction: Prediction, components: Mapping[str, Any]
) -> dict[str, Callable[[Path], Any]]:
    """What reads the folder of a component; a ControlNet needs the denoiser among the components."""
    dtype = stored_dtype or torch.float32
    return {
        "text_encoder": partial(load_text_encoder, dtype=stored_dtype),
        "scheduler": partial(load_scheduler, prediction=prediction),
        "denoiser": partial(open_denoiser, dtype=dtype),
        "refiner": partial(open_denoiser, dtype=dtype),
        TEXT_DENOISER: partial(open_denoiser, dtype=dtype),
        "few_step_solver": FewStepSolver.from_pretrained,
        "autoencoder": partial(open_autoencoder, dtype=dtype),
        "image_encoder": partial(open_image_encoder, dtype=dtype),
        "condition_encoder": ConditionEncoder.from_pretrained,
        "elevation_estimator": open_elevation_estimator,
        "controlnet": lambda folder: load_controlnet(folder, components["denoiser"], dtype=dtype),
    }
