"""The reconstructor or the autoencoder of a model, opened without the rest of it."""

from pathlib import Path
from typing import Any

from diffsplat.errors import MissingFileError
from diffsplat.io.json_files import read_json
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.pretrained.model_folders import find_model
from diffsplat.pretrained.network_folders import open_autoencoder, open_reconstructor
from diffsplat.pretrained.release_catalogue import BACKBONES, RECONSTRUCTOR_RELEASE
from diffsplat.pretrained.release_layout import default_weights, find_release
from diffsplat.pretrained.released_model_opening import ReleasedModel, load_autoencoder


def model_reconstructor(model: str, weights: Path | None = None) -> GSRecon:
    """The reconstructor of a model, in evaluation mode and float32 on the CPU.

    Args:
        model: name of a model, or a model folder; the released ones share theirs.
        weights: folder of the released weights.

    Raises:
        FileNotFoundError: when the model has none, or its weights are missing.
    """
    if model in BACKBONES:
        return open_reconstructor(find_release(weights or default_weights(), RECONSTRUCTOR_RELEASE))
    return open_reconstructor(component_config(model, "reconstructor").parent)


def model_autoencoder(model: str, weights: Path | None = None) -> Any:
    """The ``ComponentAutoencoder`` or ``SplatVAE`` of a model; arguments of :func:`model_reconstructor`."""
    if model in BACKBONES:
        return load_autoencoder(ReleasedModel(BACKBONES[model], weights=weights))
    return open_autoencoder(component_config(model, "autoencoder").parent)


def view_size(model: str, reconstructor: GSRecon) -> int:
    """Pixels per side of the views that the reconstructor of a model takes."""
    return reconstructor.image_size or int(read_json(component_config(model, "autoencoder"))["image_size"])


def component_config(model: str, part: str) -> Path:
    """The configuration of a part of a model folder.

    Raises:
        FileNotFoundError: when the model has no such part.
    """
    path = find_model(model) / part / "config.json"
    if not path.is_file():
        raise MissingFileError(f"the model {model!r} has no {part}: {path} is missing")
    return path
