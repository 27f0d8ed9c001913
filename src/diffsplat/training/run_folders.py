"""The folders that a training run reads and writes."""

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffsplat.errors import InvalidInputError, MissingFileError

Need = Literal["reconstructor", "autoencoder"]
"""A trained network that a stage reads."""


def embedded_text_encoder() -> Path:
    """Folder of the text encoder that comes with the package."""
    return Path(str(files("diffsplat"))) / "weights" / "mini" / "text_encoder"


@dataclass(frozen=True)
class RunFolders:
    """Folders of a run of one stage, or of all stages of a recipe.

    Args:
        data: Folders that diffsplat data wrote.
        out: Folder of the run; the same command goes on where it stopped.
        text_encoder: Folder of the text encoder; the embedded one by default.
        start_from: Weights of an earlier run that a new one starts from; of several stages, the OUT of that run. A
            run that has a checkpoint continues from that. Change trainer and source seeds: with those of the earlier
            run its batches and its noise come again.
    """

    data: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DIR [DIR ...]")]
    out: Path
    text_encoder: Path = field(default_factory=embedded_text_encoder)
    start_from: Path | None = None

    def of_stage(self, name: str) -> "StageFolders":
        """Folders of one of several stages: each has a folder of its own in ``out``."""
        return StageFolders(
            self.data,
            self.out / name,
            self.text_encoder,
            None if self.start_from is None else self.start_from / name / "weights",
            reconstructor=self.out / "reconstruction" / "weights",
            autoencoder=self.out / "autoencoder" / "weights",
        )


@dataclass(frozen=True)
class StageFolders(RunFolders):
    """Folders of a run of one stage.

    Args:
        reconstructor: Trained reconstructor, the weights of its run, for a stage that needs it.
        autoencoder: Trained autoencoder, the weights of its run, for a stage that needs it.
    """

    reconstructor: Path | None = None
    autoencoder: Path | None = None

    def trained(self, need: Need) -> Path:
        """Folder of a trained network.

        Raises:
            ValueError: when it is not given.
            FileNotFoundError: when it holds no network.
        """
        folder: Path | None = getattr(self, need)
        if folder is None:
            raise InvalidInputError(f"--{need} is missing, expected the weights of a trained {need}")
        if not (folder / "config.json").is_file():
            raise MissingFileError(f"{str(folder)!r} holds no trained network: its config.json is missing")
        return folder

    @property
    def grids(self) -> Path:
        """Cache of splat grids."""
        return self._cache("reconstructor", "grids")

    @property
    def latents(self) -> Path:
        """Cache of latents and embedded captions."""
        return self._cache("autoencoder", "latents")

    def _cache(self, need: Need, name: str) -> Path:
        """In the run of the network that the contents are computed with, for later stages to find, else in this one."""
        network = self.trained(need)
        return (network.parent if network.name == "weights" else self.out) / name
