"""Random dropout of text and image conditions, which classifier-free guidance needs (Ho and Salimans 2022)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffsplat.errors import require
from diffsplat.models.text.text_condition import TextCondition


@dataclass(frozen=True)
class DroppedConditions:
    """Which of ``B`` objects lose a condition.

    Args:
        text: ``[B]`` True where the text is replaced by the empty prompt.
        image: ``[B]`` True where the latents of the condition image become zero.
    """

    text: Tensor
    image: Tensor

    @classmethod
    def draw(cls, count: int, rate: float, device: torch.device | None = None) -> "DroppedConditions":
        """Random choice for ``count`` objects; see :meth:`at`."""
        return cls.at(torch.rand(count, device=device), rate)

    @classmethod
    def at(cls, uniform: Tensor, rate: float) -> "DroppedConditions":
        """The choice that follows from one uniform draw an object.

        Text alone, both, and the image alone are dropped with probability ``rate`` each, so a network that gets
        no image loses its text with probability ``2 * rate``.

        Args:
            uniform: ``[B]`` draws from [0, 1).
            rate: 0 to 1/3.

        Raises:
            ValueError: for another rate.
        """
        require(0 <= rate <= 1 / 3, "the dropout rate of conditions", rate, "0 to 1/3")
        return cls(text=uniform < 2 * rate, image=(uniform >= rate) & (uniform < 3 * rate))

    def apply_to_text(self, text: TextCondition, empty: TextCondition) -> TextCondition:
        """Replace dropped prompts.

        Args:
            text: of ``B`` prompts.
            empty: of the empty prompt, one or ``B`` times, with as many tokens.
        """
        return TextCondition(
            tokens=torch.where(self.text[:, None, None], empty.tokens, text.tokens),
            mask=_chosen(self.text, empty.mask, text.mask),
            pooled=_chosen(self.text, empty.pooled, text.pooled),
        )

    def apply_to_image(self, latents: Tensor) -> Tensor:
        """Zero the dropped among scaled and shifted latents ``[B, C, h, w]`` of condition images."""
        return torch.where(self.image[:, None, None, None], torch.zeros_like(latents), latents)


def _chosen(dropped: Tensor, empty: Tensor | None, given: Tensor | None) -> Tensor | None:
    """Rows of ``empty`` where something was dropped, else of ``given``; None where there are none."""
    if given is None or empty is None:
        return None
    return torch.where(dropped[:, None], empty, given)
