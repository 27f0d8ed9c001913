"""All components of a released model: its networks and the parts of the image-diffusion model that it needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffsplat.errors import InvalidInputError, MissingFileError
from diffsplat.io.json_files import read_json
from diffsplat.models.text.clip_t5_encoders import load_prompt_encoder
from diffsplat.pretrained.model_folders import DEFAULT_ELEVATION_DEG, SamplingDefaults
from diffsplat.pretrained.network_folders import joined_controlnets, open_autoencoder, open_image_encoder
from diffsplat.pretrained.release_catalogue import (
    DENOISER_PARTS,
    ELEVATION_RELEASE,
    Backbone,
    ControlKind,
    only_kind,
    require_controls,
)
from diffsplat.pretrained.release_layout import default_weights, find_release, repository_folder
from diffsplat.pretrained.released_networks import (
    load_controlnet,
    load_denoiser,
    load_elevation_network,
    load_splat_vae,
)
from diffsplat.pretrained.schedulers import make_scheduler


@dataclass(frozen=True)
class ReleasedModel:
    """One of the released models.

    Args:
        backbone: its row of the table.
        image: the image-conditioned denoiser.
        controls: the ControlNets of these kinds; trained for the text model, they also steer that of images.
        weights: folder of the release folders; the default one when None.
        dtype: of the networks; when None text encoders are as stored, the others in float32.
        t5: load the T5 text encoder of Stable Diffusion 3; without it its tokens are zeros.

    Raises:
        ValueError: for a model without T5, or without the ControlNets.
    """

    backbone: Backbone
    image: bool = False
    controls: tuple[ControlKind, ...] = ()
    weights: str | Path | None = None
    dtype: torch.dtype | None = None
    t5: bool = True

    def __post_init__(self) -> None:
        name = self.backbone.name
        if not self.t5 and self.backbone.family != "sd3":
            raise InvalidInputError(f"T5 was left out of {name}, expected sd35m")
        require_controls(self.backbone, self.controls)

    @property
    def folder(self) -> Path:
        """Folder of the release folders."""
        return default_weights() if self.weights is None else Path(self.weights)

    @property
    def network_dtype(self) -> torch.dtype:
        """Of every network but the text encoders."""
        return self.dtype or torch.float32

    @property
    def base(self) -> Path:
        """Folder of the image-diffusion model's parts."""
        return repository_folder(self.folder, self.backbone.base_repository)

    @property
    def defaults(self) -> SamplingDefaults:
        """What the model was sampled with."""
        row = self.backbone
        return SamplingDefaults(
            steps=row.steps,
            guidance=row.image_guidance if self.image else row.text_guidance,
            elevation_deg=DEFAULT_ELEVATION_DEG,
            prediction=row.image_prediction if self.image else row.text_prediction,
        )


def load_released(model: ReleasedModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the pipeline's constructor; components that are given are not read.

    Raises:
        FileNotFoundError: when something was not downloaded, with the command for it.
        ValueError: when a file is damaged.
    """
    _require_folder(model)
    readers: dict[str, Callable[[ReleasedModel], Any]] = {
        "text_encoder": _text_encoder,
        "denoiser": lambda model: load_denoiser(_denoiser_folder(model), dtype=model.network_dtype),
        "autoencoder": load_autoencoder,
        "scheduler": _scheduler,
    }
    if model.image:
        readers |= {"image_encoder": _image_encoder, "elevation_estimator": load_elevation}
    parts: dict[str, Any] = dict(given)
    for name, read in readers.items():
        if name not in parts:
            parts[name] = read(model)
    if model.controls and "controlnet" not in parts:
        releases = [model.backbone.control_releases[kind] for kind in model.controls]
        folders = [find_release(model.folder, release, "controlnet") for release in releases]
        networks = [load_controlnet(each, parts["denoiser"], dtype=model.network_dtype) for each in folders]
        parts["controlnet"] = joined_controlnets(networks)
    return {"defaults": model.defaults, "control_kind": only_kind(model.controls), **parts}


def load_text_encoder(model: ReleasedModel) -> Any:
    """Only the text encoder, for prompts that are encoded ahead."""
    _require_folder(model)
    return _text_encoder(model)


def _require_folder(model: ReleasedModel) -> None:
    if not model.folder.is_dir():
        raise MissingFileError(
            f"the weights of {model.backbone.name} are not in {str(model.folder)!r}, download them with "
            f"'diffsplat models download {model.backbone.name}'"
        )


def _denoiser_folder(model: ReleasedModel) -> Path:
    row = model.backbone
    release = row.image_release if model.image else row.text_release
    return find_release(model.folder, release, DENOISER_PARTS[row.family])


def load_autoencoder(model: ReleasedModel) -> Any:
    """The splat autoencoder alone.

    Raises:
        FileNotFoundError, ValueError: when it was not downloaded, or is damaged.
    """
    iteration = find_release(model.folder, model.backbone.autoencoder_release)
    if (iteration / "config.json").is_file():  # trained here
        return open_autoencoder(iteration, dtype=model.network_dtype)
    config = read_json(_base_part(model, "vae/config.json"))
    return load_splat_vae(iteration, image_vae=config, dtype=model.network_dtype)


def _image_encoder(model: ReleasedModel) -> Any:
    return open_image_encoder(_base_part(model, "vae"), dtype=model.network_dtype)


def _text_encoder(model: ReleasedModel) -> Any:
    _base_part(model, "text_encoder")
    width = None
    if not model.t5:
        width = int(read_json(_denoiser_folder(model) / "config.json")["joint_attention_dim"])
    return load_prompt_encoder(model.backbone.family, model.base, dtype=model.dtype, token_width=width)


def _scheduler(model: ReleasedModel) -> Any:
    config = read_json(_base_part(model, "scheduler/scheduler_config.json"))
    return make_scheduler(model.backbone.sampler, config, model.defaults.prediction)


def load_elevation(model: ReleasedModel) -> Any:
    """The elevation estimator, or None where it was not downloaded: then calls have to give the elevation."""
    if not (model.folder / ELEVATION_RELEASE).is_dir():
        return None
    return load_elevation_network(find_release(model.folder, ELEVATION_RELEASE))


def _base_part(model: ReleasedModel, part: str) -> Path:
    """A file or folder of the image-diffusion model.

    Raises:
        FileNotFoundError: when it was not downloaded.
    """
    path = model.base / part
    if not path.exists():
        raise MissingFileError(
            f"{str(model.base)!r} lacks {part} of {model.backbone.base_repository}, download it with 'diffsplat models "
            f"download {model.backbone.name}'"
        )
    return path
