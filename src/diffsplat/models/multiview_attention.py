"""Attention across views for the networks of diffusers (DiffSplat, ICLR 2025, section 3.3)."""

from typing import Any

from torch import Tensor, nn

from diffsplat.errors import InvalidInputError
from diffsplat.models.denoiser_families import network_family


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
        mixed: Tensor = self.inner(attn, fold_views(hidden_states, self.views), *args, **kwargs)
        return unfold_views(mixed, self.views)


def fold_views(tokens: Tensor, views: int) -> Tensor:
    """``[B * V, N, D]`` tokens of every view to ``[B, V * N, D]`` tokens of every object.

    Raises:
        ValueError: for a batch that is not a multiple of the views.
    """
    if tokens.shape[0] % views:
        raise InvalidInputError(f"a batch of {tokens.shape[0]} images is not a multiple of {views} views")
    return tokens.reshape(-1, views * tokens.shape[1], tokens.shape[2])


def unfold_views(tokens: Tensor, views: int) -> Tensor:
    """Undo :func:`fold_views`."""
    return tokens.reshape(-1, tokens.shape[1] // views, tokens.shape[2])


def set_multiview_attention(network: Any, views: int) -> None:
    """Make the self-attention of a network span ``views`` views that lie next to each other in the batch.

    In a UNet, a ControlNet and a PixArt transformer every ``attn1`` gets a processor; cross-attention stays. In
    an SD3 transformer the tokens of all views are one sequence from the patch embedding to the last layer, so
    that its batch is that of the objects: one text stream, pooled text and timestep an object. All other layers
    treat every token alike. Calling it again changes the number of views. ``MultiViewPixArt`` spans the views
    that it is given.

    Raises:
        ValueError: for no view, or a network that is none of these.
    """
    if views < 1:
        raise InvalidInputError(f"got multi-view attention over {views} views, expected at least one")
    if isinstance(network, nn.ModuleList):
        for part in network:
            set_multiview_attention(part, views)
        return
    match network_family(network):
        case "multiview":
            pass
        case "sd3":
            _join_views(network, views)
        case "unet" | "pixart":
            present = network.attn_processors
            wanted = {
                name: _spanning(processor, views) if ".attn1." in name else processor
                for name, processor in present.items()
            }
            if any(wanted[name] is not processor for name, processor in present.items()):
                network.set_attn_processor(wanted)


def _spanning(processor: Any, views: int) -> MultiViewAttention:
    """The same one where it spans so many views: a network that was compiled stays as it is."""
    if isinstance(processor, MultiViewAttention) and processor.views == views:
        return processor
    inner = processor.inner if isinstance(processor, MultiViewAttention) else processor
    return MultiViewAttention(inner, views)


class _JoinAfter:
    """Forward hook: what a layer returns for every view becomes one sequence an object."""

    def __init__(self, views: int) -> None:
        self.views = views

    def __call__(self, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return fold_views(output, self.views)


class _SplitBefore:
    """Forward pre-hook: a layer gets the sequences of every view again."""

    def __init__(self, views: int) -> None:
        self.views = views

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (unfold_views(inputs[0], self.views), *inputs[1:])


def _join_views(network: Any, views: int) -> None:
    first, last = network.pos_embed, network.proj_out
    hooks = [
        hook
        for hook in (*first._forward_hooks.values(), *last._forward_pre_hooks.values())
        if isinstance(hook, _JoinAfter | _SplitBefore)
    ]
    for hook in hooks:
        hook.views = views
    if not hooks:
        first.register_forward_hook(_JoinAfter(views))
        last.register_forward_pre_hook(_SplitBefore(views))
