"""The elevation network of the embedded model: a small residual convolutional network."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffsplat.errors import InvalidInputError
from diffsplat.models.elevation_network import elevation_input
from diffsplat.models.network_base_class import RELEASED_WEIGHTS_FILE, BaseNetwork, keep_arguments

_STRIDE = 4
"""Of the first convolution; every further width halves the image."""
_GROUPS = 8
_MEAN_DEGREES, _DEVIATION_DEGREES = -15.0, 15.0
"""What an output of 0 stands for, and of 1 more: about the views that are trained on."""


class MiniElevationEstimator(BaseNetwork):
    """The elevation of the camera of an image, as :class:`~diffsplat.models.elevation_network.ElevationEstimator`.

    Args:
        input_size: pixels per side that every image is resized to.
        widths: channels of its stages of two residual blocks, each at half the size of the one before.
        hidden: channels between the last stage and the output.
        dropout: share of the last stage's values that are left out in training.
    """

    weights_file = RELEASED_WEIGHTS_FILE

    @keep_arguments
    def __init__(
        self,
        input_size: int = 64,
        widths: Sequence[int] = (48, 96, 160),
        hidden: int = 128,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        shrinking = _STRIDE * 2 ** (len(widths) - 1)
        if not widths or input_size % shrinking or any(width % _GROUPS for width in widths):
            raise InvalidInputError(
                f"input_size is {input_size} and widths are {tuple(widths)}, expected multiples of {shrinking} and "
                f"of {_GROUPS}"
            )
        self.input_size = input_size
        inputs = (widths[0], *widths[:-1])
        stages = [
            nn.Sequential(ResidualBlock(before, width, halved=place > 0), ResidualBlock(width, width))
            for place, (before, width) in enumerate(zip(inputs, widths, strict=True))
        ]
        side = input_size // shrinking
        self.stem = nn.Conv2d(3, widths[0], 2 * _STRIDE - 1, _STRIDE, _STRIDE - 1)
        self.stages = nn.Sequential(*stages, nn.GroupNorm(_GROUPS, widths[-1]), nn.SiLU())
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(widths[-1] * side**2, hidden), nn.SiLU(), nn.Linear(hidden, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """``[B]`` degrees of ``images [B, 3, H, W]``, sRGB 0..1 on white; negative is above the horizon.

        image -- resized --> stem -- residual stages --> one value for each place and channel -- two layers --> degrees
        """
        pixels = elevation_input(images, self.input_size, self.device).to(self.dtype)
        features = self.stages(self.stem(pixels * 2 - 1))
        return _MEAN_DEGREES + _DEVIATION_DEGREES * self.head(features.flatten(1)).squeeze(-1).float()

    @torch.inference_mode()
    def degrees_above_horizon(self, images: Tensor) -> Tensor:
        """``[B]`` degrees of ``images [B, 3, H, W]``, positive above the horizon, without gradients."""
        return -self(images)


class ResidualBlock(nn.Module):
    """Pre-activation residual block (He et al. 2016, "Identity mappings in deep residual networks")."""

    def __init__(self, inputs: int, outputs: int, *, halved: bool = False) -> None:
        super().__init__()
        stride = 2 if halved else 1
        self.norm1 = nn.GroupNorm(_GROUPS, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.GroupNorm(_GROUPS, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = inputs == outputs and not halved
        self.skip = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, C, h, w]`` to ``[B, C', h, w]``, or half the size."""
        inner = self.conv1(functional.silu(self.norm1(features)))
        return self.skip(features) + self.conv2(functional.silu(self.norm2(inner)))
