"""The elevation network of small models: the first stages of an ImageNet network and two layers."""

import torch
from torch import Tensor, nn

from diffsplat.errors import require
from diffsplat.models.efficientnet import EfficientNetTrunk
from diffsplat.models.elevation_network import elevation_input
from diffsplat.models.network_base_class import RELEASED_WEIGHTS_FILE, BaseNetwork, keep_arguments

_MEAN_DEGREES, _DEVIATION_DEGREES = -15.0, 15.0
"""What an output of 0 stands for, and of 1 more: about the views that are trained on."""


class MiniElevationEstimator(BaseNetwork):
    """The elevation of the camera of an image, as :class:`~diffsplat.models.elevation_network.ElevationEstimator`.

    Args:
        input_size: pixels per side that every image is resized to.
        stages: of EfficientNet-lite0 that read it.
        places: features are averaged in as many parts of the image per side.
        hidden: channels in front of the output.
        dropout: share of the values in front of each of the two layers that are left out in training.
    """

    weights_file = RELEASED_WEIGHTS_FILE

    @keep_arguments
    def __init__(
        self, input_size: int = 128, stages: int = 5, places: int = 4, hidden: int = 256, dropout: float = 0.3
    ) -> None:
        super().__init__()
        for name, value in (("input_size", input_size), ("places", places), ("hidden", hidden)):
            require(value >= 1, name, value, "1 or more")
        self.input_size = input_size
        self.trunk = EfficientNetTrunk(stages)
        self.pool = nn.AdaptiveAvgPool2d(places)
        values = self.trunk.width * places**2
        self.head = nn.Sequential(
            nn.LayerNorm(values),
            nn.Dropout(dropout),
            nn.Linear(values, hidden),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """``[B]`` degrees of ``images [B, 3, H, W]``, sRGB 0..1 on white; negative is above the horizon.

        image -- resized --> trunk --> means of its features in 4 x 4 parts -- two layers --> degrees
        """
        pixels = elevation_input(images, self.input_size, self.device).to(self.dtype)
        features = self.pool(self.trunk(pixels)).flatten(1)
        return _MEAN_DEGREES + _DEVIATION_DEGREES * self.head(features).squeeze(-1).float()

    @torch.inference_mode()
    def degrees_above_horizon(self, images: Tensor) -> Tensor:
        """``[B]`` degrees of ``images [B, 3, H, W]``, positive above the horizon, without gradients."""
        return -self(images)
