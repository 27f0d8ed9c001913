"""A set of 3D Gaussians, always in activated form."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from diffsplat.core import tensor_checks


@dataclass(frozen=True)
class Splats:
    """``N`` 3D Gaussians, or a batch ``*B`` of such sets.

    Everything is activated: sigmas rather than logarithms, opacities rather than logits, sRGB rather than
    spherical-harmonic coefficients. Those other forms exist only inside :mod:`diffsplat.io`.

    Args:
        means: ``[*B, N, 3]`` centres, world units.
        scales: ``[*B, N, 3]`` standard deviations along the three local axes, world units, positive.
        quats: ``[*B, N, 4]`` unit quaternions ``w x y z`` that turn local into world axes.
        opacities: ``[*B, N]`` peak opacity, 0 to 1.
        colors: ``[*B, N, 3]`` sRGB, 0 to 1.

    Raises:
        ValueError: for a wrong shape or dtype, mixed devices, NaN, or a value outside its range.
    """

    means: Tensor
    scales: Tensor
    quats: Tensor
    opacities: Tensor
    colors: Tensor

    def __post_init__(self) -> None:
        tensor_checks.require_field("Splats", "means", self.means, (None, 3))
        count = self.means.shape[-2]
        tails: dict[str, tuple[int, ...]] = {
            "scales": (count, 3),
            "quats": (count, 4),
            "opacities": (count,),
            "colors": (count, 3),
        }
        for name, tail in tails.items():
            tensor: Tensor = getattr(self, name)
            if tensor.device != self.means.device:
                raise ValueError(
                    f"Splats.{name} is on {tensor.device}, expected {self.means.device} like Splats.means"
                )
            tensor_checks.require_field("Splats", name, tensor, tail, self.batch_shape)
        tensor_checks.require_positive("Splats", "scales", self.scales)
        tensor_checks.require_unit("Splats", "quats", self.quats)
        tensor_checks.require_range("Splats", "opacities", self.opacities, 0.0, 1.0)
        tensor_checks.require_range("Splats", "colors", self.colors, 0.0, 1.0)

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions ``*B``."""
        return self.means.shape[:-2]

    @property
    def count(self) -> int:
        """Number of Gaussians ``N`` in each set."""
        return self.means.shape[-2]

    @property
    def device(self) -> torch.device:
        """Device of every field."""
        return self.means.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the means."""
        return self.means.dtype

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply ``function`` to every field."""
        return type(self)(*(function(getattr(self, name)) for name in SPLAT_FIELDS))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join along the first dimension: batches of sets, or the Gaussians of unbatched sets."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in SPLAT_FIELDS))

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast, with the arguments of :meth:`torch.Tensor.to`."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    def detach(self) -> Self:
        """The same values without a gradient history."""
        return self.map(torch.Tensor.detach)

    def __getitem__(self, index: int | slice) -> Self:
        """Pick from the first batch dimension."""
        if not self.batch_shape:
            raise ValueError("Splats without a batch dimension cannot be indexed; .take picks Gaussians")
        return self.map(lambda tensor: tensor[index])

    def take(self, chosen: Tensor) -> Self:
        """Pick Gaussians of one unbatched set.

        Args:
            chosen: ``[N]`` boolean mask or ``[M]`` integer indices.

        Raises:
            ValueError: for batched sets.
        """
        if self.batch_shape:
            raise ValueError(f"Splats.take needs an unbatched set, got the batch {tuple(self.batch_shape)}")
        return self.map(lambda tensor: tensor[chosen])

    def visible(self, min_opacity: float = 1 / 255) -> Self:
        """The Gaussians of one unbatched set whose opacity is at least ``min_opacity``."""
        return self.take(self.opacities >= min_opacity)


SPLAT_FIELDS = tuple(field.name for field in fields(Splats))
"""Names of the fields of :class:`Splats`, in order."""
