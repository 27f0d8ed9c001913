"""Which folders a released model consists of, and whether they are here. Needs no torch."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffsplat.errors import InvalidInputError
from diffsplat.models.network_families import Family
from diffsplat.pretrained.catalogue import (
    BACKBONES,
    ELEVATION_RELEASE,
    RECONSTRUCTOR_RELEASE,
    RELEASE_REPOSITORY,
    Backbone,
    ControlKind,
)
from diffsplat.pretrained.release_layout import DENOISER_PARTS, Part, base_folder, find_release

SINGLES = ("reconstructor", "elevation")
"""Networks that belong to no backbone."""

_DENOISER_PARAMETERS: dict[Family, float] = {"unet": 0.86e9, "pixart": 0.61e9, "sd3": 2.24e9}
_CONTROLNET_PARAMETERS = 361e6
_AUTOENCODER_PARAMETERS = 84e6
_RECONSTRUCTOR_PARAMETERS = 42e6
_ELEVATION_PARAMETERS = 86e6
_CLIP_L, _CLIP_G, _T5_XXL, _IMAGE_VAE = 123e6, 695e6, 4.76e9, 84e6
_ENCODER_PARAMETERS: dict[Family, dict[str, float]] = {
    "unet": {"text_encoder": _CLIP_L},
    "pixart": {"text_encoder": _T5_XXL},
    "sd3": {"text_encoder": _CLIP_L, "text_encoder_2": _CLIP_G, "text_encoder_3": _T5_XXL},
}


@dataclass(frozen=True)
class Component:
    """A folder of a repository that is fetched as a whole.

    Args:
        label: what it is.
        repository: Hugging Face repository.
        folder: name of the release, or subfolder of an image-diffusion model.
        part: subfolder of the release's iteration.
        parameters: about how many weights it has; 0 for none.
        gated: whether the repository asks for consent to a licence.
    """

    label: str
    repository: str
    folder: str
    part: Part | None = None
    parameters: float = 0.0
    gated: bool = False

    @property
    def released(self) -> bool:
        """Whether it is a release rather than a part of an image-diffusion model."""
        return self.repository == RELEASE_REPOSITORY

    def place(self, weights: Path) -> Path:
        """The local folder that its repository's files are put into, with their paths in the repository."""
        return weights if self.released else base_folder(weights, self.repository)

    def size_here(self, weights: Path) -> int | None:
        """Bytes on the disk, or None unless every file is here."""
        try:
            folder = (
                find_release(weights, self.folder, self.part)
                if self.released
                else self.place(weights) / self.folder
            )
        except FileNotFoundError:
            return None
        return _size(folder) if _is_complete(folder, with_weights=self.parameters > 0) else None


def model_components(
    backbone: Backbone, *, image: bool = False, controls: Sequence[ControlKind] = ()
) -> tuple[Component, ...]:
    """What generation needs.

    Args:
        backbone: row of the table.
        image: the image model and the elevation network rather than the text model.
        controls: ControlNets; they belong to the text model.

    Raises:
        ValueError: for a variant that was not released.
    """
    chosen = [*_text_denoiser(backbone)] if controls or not image else []
    chosen += [*_image_denoiser(backbone), _elevation()] if image else []
    for kind in controls:
        if kind not in backbone.control_releases:
            known = ", ".join(backbone.control_releases) or "none"
            raise InvalidInputError(
                f"no ControlNet {kind!r} was released for {backbone.name!r}, expected one of: {known}"
            )
        chosen.append(_controlnet(backbone, kind))
    if not chosen:
        raise InvalidInputError(f"no {'image' if image else 'text'} model was released for {backbone.name!r}")
    return (*chosen, _autoencoder(backbone), *_base(backbone))


def every_component(name: str) -> tuple[Component, ...]:
    """All there is of a backbone, or one of :data:`SINGLES`.

    Raises:
        ValueError: for a name that is neither.
    """
    if name in SINGLES:
        return (_elevation() if name == "elevation" else _reconstructor(),)
    if name not in BACKBONES:
        raise InvalidInputError(
            f"unknown model {name!r}, expected one of: {', '.join((*BACKBONES, *SINGLES))}"
        )
    row = BACKBONES[name]
    controls = (_controlnet(row, kind) for kind in row.control_releases)
    return (*_text_denoiser(row), *_image_denoiser(row), *controls, _autoencoder(row), *_base(row))


def _text_denoiser(row: Backbone) -> Iterator[Component]:
    if row.text_release:
        yield _denoiser(row, "text model", row.text_release)


def _image_denoiser(row: Backbone) -> Iterator[Component]:
    if row.image_release:
        yield _denoiser(row, "image model", row.image_release)


def _denoiser(row: Backbone, label: str, release: str) -> Component:
    part, parameters = DENOISER_PARTS[row.family], _DENOISER_PARAMETERS[row.family]
    return Component(label, RELEASE_REPOSITORY, release, part, parameters)


def _controlnet(row: Backbone, kind: ControlKind) -> Component:
    release = row.control_releases[kind]
    return Component(f"{kind} control", RELEASE_REPOSITORY, release, "controlnet", _CONTROLNET_PARAMETERS)


def _autoencoder(row: Backbone) -> Component:
    return Component(
        "splat autoencoder",
        RELEASE_REPOSITORY,
        row.autoencoder_release,
        parameters=_AUTOENCODER_PARAMETERS,
    )


def _reconstructor() -> Component:
    return Component(
        "reconstructor", RELEASE_REPOSITORY, RECONSTRUCTOR_RELEASE, parameters=_RECONSTRUCTOR_PARAMETERS
    )


def _elevation() -> Component:
    return Component(
        "elevation network", RELEASE_REPOSITORY, ELEVATION_RELEASE, parameters=_ELEVATION_PARAMETERS
    )


def _base(row: Backbone) -> Iterator[Component]:
    parameters = {**_ENCODER_PARAMETERS[row.family], "vae": _IMAGE_VAE}
    for folder in row.base_folders:
        yield Component(
            folder.replace("_", " "),
            row.base_repository,
            folder,
            parameters=parameters.get(folder, 0.0),
            gated=row.gated,
        )


def _is_complete(folder: Path, *, with_weights: bool) -> bool:
    """Whether a folder has files and every shard that an index of it names."""
    if not folder.is_dir() or not any(path.is_file() for path in folder.iterdir()):
        return False
    for index in folder.glob("*.safetensors.index*.json"):
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        if not all((folder / Path(name).name).is_file() for name in named):
            return False
    return not with_weights or any(folder.glob("*.safetensors"))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
