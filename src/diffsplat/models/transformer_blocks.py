"""The plain transformer of the reconstructor, and cutting images into its tokens."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffsplat.errors import InvalidInputError


def swiglu_width(dim: int) -> int:
    """Hidden width of a gated feed-forward layer: two thirds of ``4 * dim``, rounded up to a multiple of 256."""
    return 256 * -(-(8 * dim // 3) // 256)


class SelfAttention(nn.Module):
    """Multi-head self-attention with layer-normalised queries and keys (Dehghani et al. 2023, section 2)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise InvalidInputError(f"a width of {dim} cannot be split into {heads} attention heads")
        self.heads = heads
        self.wq = nn.Linear(dim, dim, bias=False)
        self.wk = nn.Linear(dim, dim, bias=False)
        self.wv = nn.Linear(dim, dim, bias=False)
        self.wo = nn.Linear(dim, dim, bias=False)
        self.q_norm = nn.LayerNorm(dim)
        self.k_norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B, N, dim]`` to the same shape."""
        queries, keys, values = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projected in (self.q_norm(self.wq(tokens)), self.k_norm(self.wk(tokens)), self.wv(tokens))
        )
        # Under autocast the layer norms return float32; attention is fastest in the type of the values.
        mixed = functional.scaled_dot_product_attention(
            queries.to(values.dtype), keys.to(values.dtype), values
        )
        return self.wo(mixed.transpose(1, 2).flatten(2))


class GatedFeedForward(nn.Module):
    """SwiGLU feed-forward layer (Shazeer 2020)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = swiglu_width(dim)
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B, N, dim]`` to the same shape."""
        return self.w2(functional.silu(self.w1(tokens)) * self.w3(tokens))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(dim, eps=1e-5)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = nn.RMSNorm(dim, eps=1e-5)
        self.mlp = GatedFeedForward(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B, N, dim]`` to the same shape, in the type of the weights also under autocast."""
        tokens = tokens.to(self.norm1.weight.dtype)
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class Transformer(nn.Module):
    """A stack of :class:`Block`."""

    def __init__(self, dim: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(blocks))

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B, N, dim]`` to the same shape."""
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


def patchify(images: Tensor, patch: int) -> Tensor:
    """Cut images ``[B, V, C, H, W]``, H and W multiples of ``patch``, into tokens.

    Returns:
        ``[B, V * (H / patch) * (W / patch), patch * patch * C]``, channels innermost inside a token.

    Raises:
        ValueError: H or W is no multiple of ``patch``.
    """
    height, width = images.shape[-2:]
    if height % patch or width % patch:
        raise InvalidInputError(f"images of {width} x {height} pixels cannot be cut into patches of {patch}")
    tiles = images.unflatten(-2, (-1, patch)).unflatten(-1, (-1, patch))
    return tiles.permute(0, 1, 3, 5, 4, 6, 2).flatten(1, 3).flatten(2)


def unpatchify(tokens: Tensor, views: int, size: tuple[int, int], patch: int) -> Tensor:
    """Undo :func:`patchify`, to ``views`` views of ``size = (H, W)`` pixels."""
    rows, columns = size[0] // patch, size[1] // patch
    tiles = tokens.unflatten(1, (views, rows, columns)).unflatten(-1, (patch, patch, -1))
    return tiles.permute(0, 1, 6, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


def zero_(module: nn.Linear) -> nn.Linear:
    """Zero a layer in place, so that training starts from what surrounds it."""
    with torch.no_grad():
        module.weight.zero_()
        if module.bias is not None:
            module.bias.zero_()
    return module
