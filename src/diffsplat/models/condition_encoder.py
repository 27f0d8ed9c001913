"""The condition encoder of the embedded model: an image or a control map as further channels of view 0.

It is linear, like the autoencoder: a latent vector holds the principal components of a patch of pixels.
"""

from collections.abc import Iterable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.errors import InvalidInputError, require
from diffsplat.models.network_base_class import BaseNetwork, keep_arguments
from diffsplat.models.principal_components import PrincipalComponents
from diffsplat.models.transformer_blocks import patchify, unpatchify

ConditionKind = Literal["image", "depth", "normal", "canny"]
CONDITION_KINDS: tuple[ConditionKind, ...] = get_args(ConditionKind)


class ConditionEncoder(BaseNetwork):
    """Images and control maps to latents of the size of a view's.

    Args:
        image_size: edge of an image in pixels.
        patch: edge of a patch in pixels; a patch is one latent vector.
        channels: length of a latent vector, the number of principal components.

    Raises:
        ValueError: the patches do not divide the image, or have fewer numbers than channels are asked for.
    """

    center: Tensor
    components: Tensor
    deviation: Tensor

    @keep_arguments
    def __init__(self, image_size: int = 128, patch: int = 8, channels: int = 64) -> None:
        super().__init__()
        values = 3 * patch**2
        if image_size % patch:
            raise InvalidInputError(f"images of {image_size} pixels cannot be cut into patches of {patch}")
        require(0 < channels <= values, "channels", channels, f"1 to the {values} numbers of a patch")
        self.image_size, self.patch, self.channels = image_size, patch, channels
        self.register_buffer("center", torch.zeros(values))
        self.register_buffer("components", torch.eye(channels, values))
        self.register_buffer("deviation", torch.ones(channels))

    @property
    def condition_channels(self) -> int:
        """Channels of what it encodes, those that say which kind of image it is included."""
        return self.channels + len(CONDITION_KINDS)

    def encode(self, images: Tensor, kind: ConditionKind) -> Tensor:
        """``[B, C + K, h, w]`` latents of deviation 1 of images ``[B, 3, H, W]`` 0..1 on white, and flags of the kind.

        The flags are channels of 1 for the kind and 0 for others, in the order of :data:`CONDITION_KINDS`.
        """
        size = self.image_size // self.patch
        latents = (self._patches(images) - self.center) @ self.components.mT / self.deviation
        flags = functional.one_hot(torch.tensor(CONDITION_KINDS.index(kind)), len(CONDITION_KINDS))
        views = unpatchify(latents, 1, (size, size), 1)[:, 0]
        return torch.cat(
            [views, flags.to(views)[None, :, None, None].expand(len(views), -1, size, size)], dim=1
        )

    def decode(self, latents: Tensor) -> Tensor:
        """``[B, 3, H, W]`` images of latents ``[B, C + K, h, w]``: what is left of those that were encoded."""
        vectors = patchify(latents[:, None, : self.channels], 1)
        patches = (vectors * self.deviation) @ self.components + self.center
        return unpatchify(patches, 1, (self.image_size, self.image_size), self.patch)[:, 0]

    @torch.no_grad()
    def fit_components(self, images: Iterable[Tensor]) -> None:
        """Take the principal components of the patches of many images ``[B, 3, H, W]`` of every kind."""
        found = PrincipalComponents.fit(self._patches(batch).flatten(0, 1) for batch in images)
        self.center.copy_(found.center)
        self.components.copy_(found.vectors[: self.channels])
        self.deviation.copy_(found.deviations[: self.channels])

    def _patches(self, images: Tensor) -> Tensor:
        """``[B, N, 3 * patch * patch]``."""
        if tuple(images.shape[1:]) != (3, self.image_size, self.image_size):
            raise InvalidInputError(
                f"images have the shape {tuple(images.shape)}, expected [B, 3, {self.image_size}, {self.image_size}]"
            )
        return patchify(images[:, None], self.patch)
