"""Where the released files lie: ``DIR/<release>/checkpoints/<iteration>/<part>``. Needs no torch."""

import re
from pathlib import Path
from typing import Literal

from diffsplat.errors import MissingFileError
from diffsplat.models.network_families import Family

Part = Literal["unet_ema", "transformer_ema", "controlnet"]
"""Subfolder of an iteration; reconstructor, autoencoder and elevation network lie in the iteration itself."""

DENOISER_PARTS: dict[Family, Part] = {
    "unet": "unet_ema",
    "pixart": "transformer_ema",
    "sd3": "transformer_ema",
}

_ITERATION = re.compile(r"[0-9]{6}")


def latest_iteration(checkpoints: str | Path) -> Path:
    """The folder of the highest six-digit iteration.

    Args:
        checkpoints: the folder ``checkpoints`` of a release.

    Raises:
        FileNotFoundError: when there is none.
    """
    folder = Path(checkpoints)
    found = folder.iterdir() if folder.is_dir() else ()
    iterations = [path for path in found if path.is_dir() and _ITERATION.fullmatch(path.name)]
    if not iterations:
        raise MissingFileError(
            f"{str(folder)!r} holds no iteration such as '013020', download the release with 'diffsplat models "
            "download'"
        )
    return max(iterations, key=lambda path: path.name)


def find_release(weights: str | Path, release: str, part: Part | None = None) -> Path:
    """Folder of a released network.

    Args:
        weights: folder of the release folders.
        release: name of a release folder.
        part: subfolder of the iteration.

    Raises:
        FileNotFoundError: when it is not there; the message says how to get it.
    """
    iteration = latest_iteration(Path(weights) / release / "checkpoints")
    folder = iteration / part if part else iteration
    if not folder.is_dir():
        raise MissingFileError(
            f"the folder {str(folder)!r} is missing, download the release {release!r} again with 'diffsplat "
            "models download'"
        )
    return folder


def base_folder(weights: str | Path, repository: str) -> Path:
    """Folder of the parts of an image-diffusion model, named like its repository without the owner."""
    return Path(weights) / repository.rsplit("/", 1)[-1]
