"""Posed images of objects: the batch type of training and evaluation."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from diffsplat.core import tensor_checks
from diffsplat.core.cameras import Cameras

_CHANNELS = {"image": 3, "mask": 1, "normal": 3, "coord": 3, "depth": 1}
"""Channels of the images of :class:`Views`."""


@dataclass(frozen=True)
class Views:
    """``V`` posed views of each of ``B`` objects.

    The world of every object is turned so that its first view is at azimuth 0 (:meth:`Cameras.relative_to_first`).

    Args:
        image: ``[B, V, 3, H, W]`` sRGB 0..1, composited on white.
        mask: ``[B, V, 1, H, W]`` coverage 0..1.
        normal: ``[B, V, 3, H, W]`` world normals as ``n * 0.5 + 0.5``, composited on white.
        coord: ``[B, V, 3, H, W]`` world points as ``p * 0.5 + 0.5``, composited on white.
        depth: ``[B, V, 1, H, W]`` camera z in world units, 0 outside the mask.
        cameras: ``[B, V]`` cameras of the same image size.
        prompt: one caption an object, or empty.

    Raises:
        ValueError: for shapes that do not fit each other, NaN, or images outside 0..1.
    """

    image: Tensor
    mask: Tensor
    normal: Tensor
    coord: Tensor
    depth: Tensor
    cameras: Cameras
    prompt: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        size = (self.cameras.height, self.cameras.width)
        if len(self.cameras.batch_shape) != 2:
            raise ValueError(
                f"Views.cameras has leading dimensions {tuple(self.cameras.batch_shape)}, expected [B, V]"
            )
        for name, channels in _CHANNELS.items():
            tensor: Tensor = getattr(self, name)
            tensor_checks.require_field("Views", name, tensor, (channels, *size), self.cameras.batch_shape)
            tensor_checks.require_range("Views", name, tensor, 0.0, float("inf") if name == "depth" else 1.0)
        if self.prompt and len(self.prompt) != self.batch_size:
            raise ValueError(f"Views.prompt has {len(self.prompt)} captions, expected {self.batch_size}")

    @property
    def batch_size(self) -> int:
        """Number of objects ``B``."""
        return self.cameras.batch_shape[0]

    @property
    def count(self) -> int:
        """Number of views ``V`` of each object."""
        return self.cameras.batch_shape[1]

    def _map(self, function: Callable[[Tensor], Tensor], cameras: Cameras, prompt: tuple[str, ...]) -> Self:
        images = {name: function(getattr(self, name)) for name in _CHANNELS}
        return type(self)(**images, cameras=cameras, prompt=prompt)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast, with the arguments of :meth:`torch.Tensor.to`."""
        cameras = self.cameras.to(*args, **kwargs)
        return self._map(lambda tensor: tensor.to(*args, **kwargs), cameras, self.prompt)

    def take(self, views: slice) -> Self:
        """Keep some views of every object; the world stays as it is."""
        return self._map(lambda tensor: tensor[:, views], self.cameras[:, views], self.prompt)

    def objects(self, chosen: slice) -> Self:
        """Keep some objects of the batch."""
        return self._map(lambda tensor: tensor[chosen], self.cameras[chosen], self.prompt[chosen])

    @classmethod
    def concatenate(cls, parts: list["Views"]) -> "Views":
        """Join batches along the objects.

        Raises:
            ValueError: there are no parts, or their views have different sizes.
        """
        if not parts:
            raise ValueError("Views.concatenate got no parts, expected at least one")
        cameras = Cameras.concatenate([part.cameras for part in parts])
        images = {name: torch.cat([getattr(part, name) for part in parts]) for name in _CHANNELS}
        return cls(**images, cameras=cameras, prompt=tuple(text for part in parts for text in part.prompt))
