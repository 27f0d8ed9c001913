"""Latents of posed views: the frozen reconstructor and autoencoder in front of every denoiser's training."""

from typing import cast

import torch
from torch import Tensor, nn

from diffsplat.core import Views
from diffsplat.models.splat_vae import Variant
from diffsplat.pipelines.pipeline_protocols import Autoencoder
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.trained_networks import (
    TrainableAutoencoder,
    open_autoencoder,
    open_reconstructor,
    require_same_pixel_grid,
)


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
        self.autoencoder = cast(nn.Module, autoencoder).eval().requires_grad_(False)

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
        autoencoder = open_autoencoder(folders.trained("autoencoder"), variant)
        require_same_pixel_grid(reconstructor, autoencoder)
        return cls(reconstructor, autoencoder)

    @property
    def codec(self) -> TrainableAutoencoder:
        """The autoencoder with its own methods."""
        return cast(TrainableAutoencoder, self.autoencoder)

    @torch.no_grad()
    def forward(self, views: Views) -> Tensor:
        """Latents of the views that the autoencoder codes, the first of those given."""
        inputs = views.take(slice(0, cast(Autoencoder, self.autoencoder).views))
        return self.codec.encode(self.reconstructor(inputs)).float()
