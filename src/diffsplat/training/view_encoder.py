"""Latents of posed views: the frozen reconstructor and autoencoder in front of every denoiser's training."""

from typing import cast

import torch
from torch import Tensor, nn

from diffsplat.core import Views
from diffsplat.pipelines.pipeline_protocols import Autoencoder
from diffsplat.training.config_checks import require
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.trained_networks import TrainableAutoencoder, open_autoencoder, open_reconstructor
from diffsplat.training.view_batches import image_size


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
    def open(cls, folders: StageFolders) -> "ViewEncoder":
        """The encoder of a run's reconstructor and autoencoder.

        Raises:
            ValueError: when their pixel grids differ, or the data has images of another size.
        """
        reconstructor = open_reconstructor(folders.trained("reconstructor"))
        autoencoder = open_autoencoder(folders.trained("autoencoder"))
        expected = f"the {reconstructor.pixel_grid!r} of the reconstructor"
        same = autoencoder.pixel_grid == reconstructor.pixel_grid
        require(same, "the autoencoder's pixel grid", repr(autoencoder.pixel_grid), expected)
        found, wanted = image_size(folders.data), autoencoder.image_size
        require(
            found == wanted, "the size of the data's images", found, f"the {wanted} pixels of the autoencoder"
        )
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
