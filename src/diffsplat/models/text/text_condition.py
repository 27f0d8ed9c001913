"""Text conditioning tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextCondition:
    """``B`` encoded prompts.

    Args:
        tokens: ``[B, T, D]``, one vector a text token.
        mask: ``[B, T]`` bool, True where a token counts; None where all do.
        pooled: ``[B, P]``, a vector for the whole text, of networks that take one.
        image: ``[B, ...]`` features of an image that is a prompt as well, of a UNet with an IP-Adapter.
    """

    tokens: Tensor
    mask: Tensor | None = None
    pooled: Tensor | None = None
    image: Tensor | None = None

    def to(self, device: torch.device | str) -> Self:
        """Move to a device."""
        return self._map([self], lambda parts: parts[0].to(device))

    def take(self, chosen: slice) -> Self:
        """Keep some prompts."""
        return self._map([self], lambda parts: parts[0][chosen])

    def repeated(self, count: int) -> Self:
        """Each of one prompt ``count`` times, without a copy."""
        return self._map([self], lambda parts: parts[0].expand(count, *parts[0].shape[1:]))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join along the prompts; all parts have the same length ``T``."""
        return cls._map(parts, torch.cat)

    @classmethod
    def _map(cls, parts: Sequence[Self], function: Any) -> Self:
        names = ("tokens", "mask", "pooled", "image")
        given = [name for name in names if getattr(parts[0], name) is not None]
        return cls(**{name: function([getattr(part, name) for part in parts]) for name in given})


class PromptEncoder(Protocol):
    """Anything that encodes prompts."""

    def __call__(self, texts: list[str], /) -> TextCondition:
        """Encode ``B`` prompts."""
        ...
