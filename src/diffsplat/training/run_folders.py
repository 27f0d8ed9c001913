"""The folders that a training run reads and writes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from diffsplat.errors import InvalidInputError, MissingFileError, require
from diffsplat.models.network_base_class import CONFIG_FILE
from diffsplat.pretrained.model_folders import find_model
from diffsplat.pretrained.network_folders import stored_class
from diffsplat.pretrained.release_catalogue import trained_from
from diffsplat.pretrained.release_layout import (
    choose_weights,
    default_weights,
    latest_iteration,
    repository_folder,
)

Need = Literal["reconstructor", "image_autoencoder", "autoencoder", "condition_encoder", "denoiser"]
"""A trained network that a stage reads."""
_STAGES: dict[Need, str] = {
    "reconstructor": "reconstruction",
    "image_autoencoder": "image-autoencoder",
    "autoencoder": "autoencoder",
    "condition_encoder": "condition",
    "denoiser": "diffusion",
}
"""Stages that make them."""
_CLASSES: dict[Need, tuple[str, ...]] = {
    "reconstructor": ("GSRecon",),
    "image_autoencoder": ("AutoencoderKL",),
    "autoencoder": ("SplatVAE", "ComponentAutoencoder"),
    "condition_encoder": ("ConditionEncoder",),
    "denoiser": ("UNet2DConditionModel", "UNetMV2DConditionModel"),
}
"""Their classes, by the names in ``config.json``."""


@dataclass(frozen=True)
class RunFolders:
    """Folders of a run of one stage, or of all stages of a recipe.

    Args:
        data: Folders that diffsplat data wrote; on disk, or addresses of fsspec such as s3://bucket/objects.
        out: Folder of the run; the same command goes on where it stopped.
        text_encoder: Folder of the text encoder of the small models; the embedded one by default.
        start_from: Weights of an earlier run that a new one starts from; of several stages, the OUT of that run. A
            run that has a checkpoint continues from that. Change trainer and source seeds: with those of the earlier
            run its batches and its noise come again.
        pretrained: Folder of the image-diffusion models, each in a folder named like its repository.
        ids: File that lists the objects to train and evaluate on: .json or .csv or lines of text; all by default.
        data_cache_gb: Gigabytes of data from addresses that may be kept in the user's cache on disk.
        overfit: Train on this many objects only, evaluate on the same, and say whether the figure reaches what it
            must; 0 for all objects.

    Raises:
        ValueError: for a negative number of objects.
    """

    data: Annotated[tuple[str | Path, ...], tyro.conf.arg(metavar="DIR [DIR ...]")]
    out: Path
    text_encoder: Path = field(default_factory=lambda: find_model("mini") / "text_encoder")
    start_from: Path | None = None
    pretrained: Path = field(default_factory=default_weights)
    overfit: int = 0
    ids: Path | None = None
    data_cache_gb: float = 20.0

    def __post_init__(self) -> None:
        require(self.overfit >= 0, "overfit", self.overfit, "a number of objects, or 0 for all")

    def of_stage(self, name: str) -> "StageFolders":
        """Folders of one of several stages: each has a folder of its own in ``out``.

        A denoiser that takes an image starts from that of text, unless there is an earlier one.
        """
        earlier = None if self.start_from is None else self.start_from / name / "weights"
        if earlier is None and name == "image-diffusion":
            earlier = self.out / "diffusion" / "weights"
        values: dict[str, Any] = {**vars(self), "out": self.out / name, "start_from": earlier}
        made = {need: self.out / stage / "weights" for need, stage in _STAGES.items()}
        return StageFolders(**{**values, **made})

    def pretrained_part(self, repository: str, part: str = "") -> Path:
        """Folder of a part of an image-diffusion model, such as its ``vae``.

        Args:
            repository: of the hub; ``OWNER/NAME``.
            part: subfolder; the model itself when empty.

        Raises:
            FileNotFoundError: when it is not there; the message says how to get it.
        """
        model = repository_folder(self.pretrained, repository)
        folder = model / part
        if not (folder / "config.json").is_file():
            raise MissingFileError(
                f"{str(folder)!r} holds no network of {repository}: download it with 'diffsplat models download "
                f"{trained_from(repository)} --for-training', or name the folder that holds {model.name} with "
                "--pretrained"
            )
        return folder


@dataclass(frozen=True)
class StageFolders(RunFolders):
    """Folders of a run of one stage.

    Args:
        reconstructor: Trained reconstructor, a run or a release, for a stage that needs it.
        image_autoencoder: Trained image autoencoder of the small models, which have no image-diffusion model.
        autoencoder: Trained autoencoder, a run or a release, for a stage that needs it.
        condition_encoder: Encoder of images and control maps, for a denoiser of the embedded model that takes them.
        denoiser: Trained text-conditioned denoiser, a run or a release, for a ControlNet.
        teacher: Model that one of few steps is distilled from: its name or folder.
    """

    reconstructor: Path | None = None
    image_autoencoder: Path | None = None
    autoencoder: Path | None = None
    condition_encoder: Path | None = None
    denoiser: Path | None = None
    teacher: str = "mini"

    def trained(self, need: Need) -> Path:
        """Folder with the files of a trained network.

        Raises:
            ValueError: when it is not given, or holds another kind of network.
            FileNotFoundError: when it holds no network.
        """
        folder: Path | None = getattr(self, need)
        if folder is None:
            raise InvalidInputError(
                f"--{need.replace('_', '-')} is missing, expected the weights of a trained {need.replace('_', ' ')}"
            )
        found = find_network(folder)
        require_class(found, need, *_CLASSES[need])
        return found

    @property
    def prompts(self) -> Path:
        """Cache of encoded captions."""
        return self._cache("prompts")

    @property
    def latents(self) -> Path:
        """Cache of latents."""
        return self._cache("latents")

    def _cache(self, name: str) -> Path:
        """In the run of the autoencoder, for later stages to find, else in this one."""
        network = self.trained("autoencoder")
        return (network.parent if network.name == "weights" else self.out) / name


def find_network(folder: Path) -> Path:
    """The folder that holds a network's files.

    Args:
        folder: that folder, a run (whose ``weights`` are meant), or a release (whose newest iteration is meant).

    Raises:
        FileNotFoundError: when there is no network.
    """
    for place in (folder, folder / "weights"):
        if place.is_dir() and choose_weights([path.name for path in place.iterdir()]):
            return place
        if (place / "checkpoints").is_dir() and not (place / "metrics.jsonl").exists():
            return _only_part(latest_iteration(place / "checkpoints"))
    raise MissingFileError(f"{str(folder)!r} holds no trained network: it has no weights (*.safetensors)")


def require_class(folder: Path, name: str, *known: str) -> None:
    """Refuse a folder of another kind of network than an option of a name takes; one without ``config.json`` passes.

    Raises:
        ValueError: names the kind that was found.
    """
    kind = stored_class(folder) if (folder / CONFIG_FILE).is_file() else known[0]
    require(kind in known, name, repr(str(folder)), f"the folder of a {known[0]}, not of a {kind}")


def _only_part(iteration: Path) -> Path:
    """The iteration itself, or the folder in it that a denoiser or ControlNet lies in."""
    if choose_weights([path.name for path in iteration.iterdir()]):
        return iteration
    parts = [path for path in iteration.iterdir() if path.is_dir()]
    return parts[0] if len(parts) == 1 else iteration
