"""Trained networks that later stages read, from runs or from releases."""

from pathlib import Path
from typing import Protocol, cast

from torch import Tensor

from diffsplat.core import SplatGrid
from diffsplat.io.json_files import read_json
from diffsplat.models import ComponentAutoencoder
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.models.splat_vae import SplatVAE, Variant
from diffsplat.pipelines.pipeline_protocols import Autoencoder
from diffsplat.pretrained.released_networks import load_reconstructor, load_splat_vae

_CONFIG = "config.json"


class TrainableAutoencoder(Autoencoder, Protocol):
    """An autoencoder of both directions."""

    def encode(self, grid: SplatGrid, /) -> Tensor:
        """``[B, V, C, h, w]`` latents of grids ``[B, V, 12, H, W]``, the posterior's mode where there is one."""
        ...


def open_reconstructor(folder: Path) -> GSRecon:
    """The reconstructor in a folder of ours, which has a configuration, or of a release, which has none."""
    return (
        GSRecon.from_pretrained(folder)
        if (folder / _CONFIG).is_file()
        else load_reconstructor(folder).float()
    )


def open_autoencoder(folder: Path, variant: Variant | None = None) -> TrainableAutoencoder:
    """The autoencoder in a folder of ours, by the class in its configuration, or of a release.

    Args:
        folder: with its files.
        variant: latent space of a released one, where its weights do not tell it.
    """
    if not (folder / _CONFIG).is_file():
        network = load_splat_vae(folder, variant=variant).float()
    elif read_json(folder / _CONFIG).get("_class_name") == SplatVAE.__name__:
        network = SplatVAE.from_pretrained(folder)
    else:
        network = ComponentAutoencoder.from_pretrained(folder)
    return cast(TrainableAutoencoder, network)
