"""Distorted images that the noun judge is fitted on, so that it tolerates imperfect ones.

Features of an ImageNet network hang on texture and on the straightness of edges (Geirhos et al. 2019, "ImageNet-trained
CNNs are biased towards texture"). A classifier that has only seen clean renders loses a real object when its image
is bent by two pixels; one that has also seen these images of the real objects does not.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.images.gaussian_blur import gaussian_blur

_BEND_NODES = 12
"""Independent displacements along an edge of the image."""


@dataclass(frozen=True)
class Distortion:
    """One way to change an image, in the order of the arguments.

    Args:
        mirrored: left and right are exchanged.
        colors: what happens to the three colour channels: nothing, a cyclic exchange, or their mean for all.
        bend: deviation of a smooth random displacement, as a share of the image's edge.
        zoom: factor of the object's size about the image's middle.
        blur: deviation of a Gaussian smoothing, as a share of the image's edge; 0 for none.
        gamma: exponent of the colours.
    """

    mirrored: bool = False
    colors: Literal["kept", "exchanged", "grey"] = "kept"
    bend: float = 0.0
    zoom: float = 1.0
    blur: float = 0.0
    gamma: float = 1.0

    def __call__(self, images: Tensor, seed: int) -> Tensor:
        """Distorted ``[N, 3, H, W]`` images (0..1 on white), each bent in its own way, by the seed."""
        images = images.flip(-1) if self.mirrored else images
        if self.colors == "exchanged":
            images = images.roll(-1, dims=1)
        elif self.colors == "grey":
            images = images.mean(dim=1, keepdim=True).expand_as(images)
        images = self._moved(images, seed)
        if self.blur:
            images = gaussian_blur(images, self.blur * images.shape[-1])
        return images.clamp(0, 1) ** self.gamma

    def _moved(self, images: Tensor, seed: int) -> Tensor:
        if self.zoom == 1 and not self.bend:
            return images
        count, _, height, width = images.shape
        turn = torch.eye(2, 3).expand(count, -1, -1) / self.zoom
        places = functional.affine_grid(turn, list(images.shape), align_corners=False)
        random = torch.randn(
            count, 2, _BEND_NODES, _BEND_NODES, generator=torch.Generator().manual_seed(seed)
        )
        # Places run from -1 to 1 across the image.
        shift = 2 * self.bend * functional.interpolate(random, (height, width), mode="bicubic")
        moved = functional.grid_sample(images - 1, places + shift.permute(0, 2, 3, 1), align_corners=False)
        return moved + 1


DISTORTIONS = (
    Distortion(mirrored=True, blur=0.008),
    Distortion(blur=0.017),
    Distortion(colors="exchanged"),
    Distortion(colors="grey", zoom=0.75),
    Distortion(bend=0.02, blur=0.0055),
    Distortion(mirrored=True, bend=0.012, zoom=1.12, gamma=1.3),
)
"""What the noun judge is fitted on in addition to the renders themselves."""
