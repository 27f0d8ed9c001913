"""Latents of posed views: the frozen reconstructor and autoencoder in front of every denoiser's training."""

from typing import Protocol, cast

import torch
from torch import Tensor, nn

from diffsplat.core import SplatGrid, Views
from diffsplat.errors import require
from diffsplat.models.denoiser_families import Variant
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.pipelines.pipeline_interfaces import Autoencoder
from diffsplat.pretrained.network_folders import open_autoencoder, open_reconstructor
from diffsplat.training.run_folders import StageFolders


class TrainableAutoencoder(Autoencoder, Protocol):
    """An autoencoder of both directions."""

    def encode(self, grid: SplatGrid, /) -> Tensor:
        """``[B, V, C, h, w]`` latents of grids ``[B, V, 12, H, W]``, the posterior's mode where there is one."""
        ...


class ViewEncoder(nn.Module):
    """``[B, V]`` views to the mode of their latents ``[B, V, C, h, w]``, without gradients.

    views -- reconstructor --> splat grids -- autoencoder --> latents

    The grids are those of the views' own cameras, whatever ring they form.

    Args:
        reconstructor: four views to splat grids.
        autoencoder: splat grids to latents.
    """

    def __init__(self, reconstructor: nn.Module, autoencoder: TrainableAutoencoder) -> None:
        super().__init__()
        self.reconstructor = reconstructor.eval().requires_grad_(False)
        self.codec = autoencoder
        cast(nn.Module, autoencoder).eval().requires_grad_(False)

    @classmethod
    def open(cls, folders: StageFolders, variant: Variant | None = None) -> "ViewEncoder":
        """The encoder of a run's reconstructor and autoencoder.

        Args:
            folders: of the run.
            variant: latent space of a released autoencoder, where its weights do not tell it.

        Raises:
            ValueError: when their pixel grids differ.
        """
        reconstructor = open_reconstructor(folders.trained("reconstructor"))
        autoencoder = open_autoencoder(folders.trained("autoencoder"), variant=variant)
        require_same_pixel_grid(reconstructor, autoencoder)
        return cls(reconstructor, autoencoder)

    @torch.no_grad()
    def forward(self, views: Views) -> Tensor:
        """Latents of the views that the autoencoder codes, the first of those given."""
        inputs = views.take(slice(0, self.codec.views))
        return self.codec.encode(self.reconstructor(inputs)).float()


def require_same_pixel_grid(reconstructor: GSRecon, autoencoder: Autoencoder) -> None:
    """Refuse an autoencoder that would place the reconstructor's depths elsewhere.

    Raises:
        ValueError: names both pixel grids.
    """
    expected = f"the {reconstructor.pixel_grid!r} of the reconstructor"
    same = autoencoder.pixel_grid == reconstructor.pixel_grid
    require(same, "the autoencoder's pixel grid", repr(autoencoder.pixel_grid), expected)
