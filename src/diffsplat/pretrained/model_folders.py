"""The folder of the embedded model and of trained ones: its files and its ``model_index.json``. Needs no torch."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from math import inf
from pathlib import Path
from typing import Any, Self

import diffsplat
from diffsplat.errors import InvalidInputError, MissingFileError
from diffsplat.io.json_files import read_json, write_json
from diffsplat.pretrained.backbones import Prediction

DEFAULT_STEPS = 20
DEFAULT_GUIDANCE = 4.0
DEFAULT_SHIFT = 6.0
"""Shift of the noise levels towards noise: a 16,384-number latent decides what it shows above level 0.93."""
DEFAULT_ELEVATION_DEG = 10.0

INDEX_FILE = "model_index.json"
PIPELINE_NAME = "DiffSplatPipeline"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"

EMBEDDED_MODELS = ("mini",)

COMPONENT_FILES: dict[str, tuple[str, ...]] = {
    "denoiser": ("config.json", WEIGHTS_FILE),
    "refiner": ("config.json", WEIGHTS_FILE),
    "autoencoder": ("config.json", WEIGHTS_FILE),
    "text_encoder": ("config.json", "model.safetensors", "tokenizer.json"),
    "scheduler": ("scheduler_config.json",),
}
"""Files of a text-to-splats model, by component and subfolder; a model may lack the refiner."""

_COMPONENT_CLASSES: dict[str, list[str]] = {
    "denoiser": ["diffsplat", "MultiViewPixArt"],
    "refiner": ["diffsplat", "MultiViewPixArt"],
    "autoencoder": ["diffsplat", "ComponentAutoencoder"],
    "text_encoder": ["diffsplat", "TextEncoder"],
}


@dataclass(frozen=True)
class SamplingDefaults:
    """What a model is sampled with unless the caller says otherwise.

    Args:
        steps: denoising steps.
        guidance: classifier-free guidance scale.
        elevation_deg: degrees above the horizon of the generated views.
        prediction: what the denoiser predicts.
        smoothing: pixels that generated surfaces are smoothed by, as of
            :func:`~diffsplat.pipelines.surface_smoothing.clean_surfaces`, which also lays the Gaussians anew;
            0 leaves them as they are decoded.
        refined_below: noise level, 0 to 1, below which a model's refiner takes over from its denoiser.
        refiner_guidance: guidance scale of the refiner; up to 1, or where the caller asks for no guidance, none.

    Raises:
        ValueError: for anything but a number where one is expected, or a guidance scale that is out of range.
    """

    steps: int = DEFAULT_STEPS
    guidance: float = DEFAULT_GUIDANCE
    elevation_deg: float = DEFAULT_ELEVATION_DEG
    prediction: Prediction = "latents"
    smoothing: float = 0.0
    refined_below: float = 0.0
    refiner_guidance: float = 1.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "prediction" and not is_number(value):
                raise InvalidInputError(f"{name} is {value!r}, expected a number")
        if not 0 <= self.refiner_guidance < inf:
            raise InvalidInputError(
                f"refiner_guidance is {self.refiner_guidance}, expected a finite number of at least 0"
            )

    @classmethod
    def from_index(cls, index: dict[str, Any]) -> Self:
        """Read the entries of a model index; those that are absent keep their value."""
        return cls(**{entry.name: index[entry.name] for entry in fields(cls) if entry.name in index})


def find_model(model: str | Path) -> Path:
    """Folder of an embedded model by name, or of a model on disk by path.

    Raises:
        ValueError: for a name that is neither.
        FileNotFoundError: for a folder without a model.
    """
    if isinstance(model, str) and model in EMBEDDED_MODELS:
        folder = Path(str(files("diffsplat"))) / "weights" / model
    else:
        folder = Path(model)
        if not folder.is_dir():
            known = ", ".join(EMBEDDED_MODELS)
            raise InvalidInputError(
                f"unknown model {str(model)!r}, expected one of: {known}; or a model folder"
            )
    if not (folder / INDEX_FILE).is_file():
        raise MissingFileError(f"{str(folder)!r} holds no model: its file {INDEX_FILE} is missing")
    return folder


def read_index(folder: Path, replaced: Collection[str] = ()) -> dict[str, Any]:
    """Parse the model index and make sure that the files of its components are there.

    Args:
        folder: from :func:`find_model`.
        replaced: names out of :data:`COMPONENT_FILES` that the caller brings along; their files may be missing.

    Raises:
        ValueError: when the index is not one of this pipeline.
        FileNotFoundError: when a component's file is missing.
    """
    path = folder / INDEX_FILE
    index = read_json(path, "expected the index of a model")
    found = index.get("_class_name")
    if found != PIPELINE_NAME:
        raise InvalidInputError(f"{str(path)!r} describes {found!r}, expected the index of a {PIPELINE_NAME}")
    for name in sorted(stored_components(index) - set(replaced)):
        for file in COMPONENT_FILES[name]:
            if not (folder / name / file).is_file():
                raise MissingFileError(f"the model {str(folder)!r} lacks its file {name}/{file}")
    return index


def stored_components(index: dict[str, Any]) -> set[str]:
    """Names of the components that a model folder holds: all of :data:`COMPONENT_FILES` but perhaps the refiner."""
    return {name for name in COMPONENT_FILES if name != "refiner" or name in index}


def write_index(folder: Path, defaults: SamplingDefaults, *, refiner: bool = False) -> None:
    """Write the index of a text-to-splats model.

    Args:
        folder: of the model; its scheduler is there.
        defaults: what it is sampled with.
        refiner: whether it has one.
    """
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    classes = {name: kind for name, kind in _COMPONENT_CLASSES.items() if refiner or name != "refiner"}
    index = {
        "_class_name": PIPELINE_NAME,
        "_diffsplat_version": diffsplat.__version__,
        **classes,
        "scheduler": ["diffusers", scheduler["_class_name"]],
        **asdict(defaults),
    }
    write_json(index, folder / INDEX_FILE)


def is_number(value: object) -> bool:
    """Whether a value is an integer or a float, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)
