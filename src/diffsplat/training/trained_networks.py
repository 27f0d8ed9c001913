"""Trained networks that later stages read, from runs or from releases."""

from pathlib import Path
from typing import Protocol, cast

from torch import Tensor

from diffsplat.core import SplatGrid
from diffsplat.io.json_files import read_json
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.models.splat_vae import Variant
from diffsplat.pipelines.pipeline_protocols import Autoencoder
from diffsplat.pretrained import stored_networks
from diffsplat.pretrained.release_catalogue import RELEASED_IMAGE_SIZE
from diffsplat.pretrained.released_networks import load_reconstructor, load_splat_vae
from diffsplat.training.config_checks import require

_CONFIG = "config.json"


class TrainableAutoencoder(Autoencoder, Protocol):
    """An autoencoder of both directions."""

    def encode(self, grid: SplatGrid, /) -> Tensor:
        """``[B, V, C, h, w]`` latents of grids ``[B, V, 12, H, W]``, the posterior's mode where there is one."""
        ...


def require_same_pixel_grid(reconstructor: GSRecon, autoencoder: Autoencoder) -> None:
    """Refuse an autoencoder that would place the reconstructor's depths elsewhere.

    Raises:
        ValueError: names both pixel grids.
    """
    expected = f"the {reconstructor.pixel_grid!r} of the reconstructor"
    same = autoencoder.pixel_grid == reconstructor.pixel_grid
    require(same, "the autoencoder's pixel grid", repr(autoencoder.pixel_grid), expected)


def open_reconstructor(folder: Path) -> GSRecon:
    """The reconstructor in a folder of ours, which has a configuration, or of a release, which has none."""
    return (
        GSRecon.from_pretrained(folder)
        if (folder / _CONFIG).is_file()
        else load_reconstructor(folder).float()
    )


def autoencoder_image_size(folder: Path) -> int:
    """Pixels per side of the images that an autoencoder of ours, or a released one, is made for."""
    path = folder / _CONFIG
    return int(read_json(path)["image_size"]) if path.is_file() else RELEASED_IMAGE_SIZE


def open_autoencoder(folder: Path, variant: Variant | None = None) -> TrainableAutoencoder:
    """The autoencoder in a folder of ours, by the class in its configuration, or of a release.

    Args:
        folder: with its files.
        variant: latent space of a released one, where its weights do not tell it.
    """
    stored = (folder / _CONFIG).is_file()
    network = (
        stored_networks.open_autoencoder(folder)
        if stored
        else load_splat_vae(folder, variant=variant).float()
    )
    return cast(TrainableAutoencoder, network)
