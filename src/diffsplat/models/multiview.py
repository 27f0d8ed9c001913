"""Attention across views for stock diffusers networks (DiffSplat, ICLR 2025, section 3.3)."""

from typing import Any, Protocol

from torch import Tensor, nn


class HasAttentionProcessors(Protocol):
    """The part of a diffusers network that is needed here."""

    @property
    def attn_processors(self) -> dict[str, Any]:
        """Processors by name."""
        ...

    def set_attn_processor(self, processor: dict[str, Any]) -> None:
        """Replace processors by name."""
        ...


class MultiViewAttention:
    """Attention processor that lets the views of an object attend to each other.

    ``(B V) N D`` tokens are folded into ``B (V N) D`` around another processor. With one view it changes nothing.

    Args:
        inner: processor that computes the attention.
        views: number of views ``V`` that lie next to each other in the batch.
    """

    def __init__(self, inner: Any, views: int) -> None:
        self.inner = inner
        self.views = views

    def __call__(self, attn: nn.Module, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``[B * V, N, D]`` to the same shape."""
        if hidden_states.shape[0] % self.views:
            raise ValueError(
                f"a batch of {hidden_states.shape[0]} images is no multiple of {self.views} views"
            )
        tokens = hidden_states.shape[1]
        folded = hidden_states.reshape(-1, self.views * tokens, hidden_states.shape[-1])
        mixed: Tensor = self.inner(attn, folded, *args, **kwargs)
        return mixed.reshape(-1, tokens, mixed.shape[-1])


def set_multiview_attention(network: HasAttentionProcessors, views: int) -> None:
    """Make every self-attention (``attn1``) of a stock network span ``views`` views; cross-attention stays.

    Calling it again changes the number of views.
    """
    if views < 1:
        raise ValueError(f"multi-view attention over {views} views was asked for, expected at least one")
    network.set_attn_processor(
        {
            name: MultiViewAttention(_innermost(processor), views) if ".attn1." in name else processor
            for name, processor in network.attn_processors.items()
        }
    )


def _innermost(processor: Any) -> Any:
    return processor.inner if isinstance(processor, MultiViewAttention) else processor
