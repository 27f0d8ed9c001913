"""The denoiser of the embedded model: a PixArt transformer (Chen et al. 2024) over the tokens of several views.

The weights are those of diffusers' ``PixArtTransformer2DModel``, under the same names. That network applied to every
view, its self-attention spanning the views, computes the same.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffsplat.errors import InvalidInputError, require
from diffsplat.models.network_base_class import BaseNetwork, keep_arguments
from diffsplat.models.rays_and_noise_levels import PLUCKER_CHANNELS
from diffsplat.models.transformer_blocks import unpatchify

_NOISE_CHANNELS = 256
"""Length of the sine embedding of a timestep."""
_POSITION_BASE = 64
"""Latents per side that the frequencies of the position embedding are laid out for."""


class MultiViewPixArt(BaseNetwork):
    """Noisy latents and rays of several views to what the network predicts of each, as the text asks.

    Args:
        num_attention_heads: heads of every attention.
        attention_head_dim: channels of a head; the width ``D`` of a token is that of all heads.
        in_channels: channels of the input.
        out_channels: channels of the output.
        num_layers: transformer blocks.
        sample_size: edge of a view's latents.
        patch_size: edge of the square of latents that makes a token.
        caption_channels: length of a text token.

    Raises:
        ValueError: for latents that the patches do not divide.
    """

    @keep_arguments
    def __init__(
        self,
        num_attention_heads: int,
        attention_head_dim: int,
        in_channels: int,
        out_channels: int,
        num_layers: int,
        sample_size: int,
        patch_size: int,
        caption_channels: int,
    ) -> None:
        super().__init__()
        if sample_size % patch_size:
            raise InvalidInputError(
                f"latents of {sample_size} x {sample_size} cannot be cut into patches of {patch_size}"
            )
        width = num_attention_heads * attention_head_dim
        self.patch_size = patch_size
        self.pos_embed = PatchEmbedding(in_channels, width, patch_size, sample_size)
        self.adaln_single = NoiseLevelEmbedding(width)
        self.caption_projection = TwoLayers(caption_channels, width, nn.GELU("tanh"))
        self.transformer_blocks = nn.ModuleList(Block(width, num_attention_heads) for _ in range(num_layers))
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.proj_out = nn.Linear(width, patch_size**2 * out_channels)

    def forward(
        self, inputs: Tensor, timestep: Tensor, text: Tensor, text_mask: Tensor | None = None
    ) -> Tensor:
        """``[B, V, C', h, w]`` predictions.

        Args:
            inputs: ``[B, V, C, h, w]`` of every view, any number of views.
            timestep: ``[B]`` noise level as 0..1000.
            text: ``[B, T, E]`` text tokens.
            text_mask: ``[B, T]`` bool, True where a token counts; None where all do.
        """
        tokens = self.pos_embed(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2]).flatten(1, 2)
        modulation, embedded = self.adaln_single(timestep)
        text = self.caption_projection(text)
        for block in self.transformer_blocks:
            tokens = block(tokens, modulation, text, text_mask)
        shift, scale = (self.scale_shift_table + embedded[:, None]).chunk(2, dim=1)
        output = self.proj_out(modulated(tokens, shift, scale))
        height, width = inputs.shape[-2:]
        return unpatchify(output, inputs.shape[1], (height, width), self.patch_size)


def make_denoiser(
    *,
    latent_channels: int,
    latent_size: int,
    width: int,
    layers: int,
    text_channels: int,
    patch: int,
    condition_channels: int = 0,
) -> MultiViewPixArt:
    """A denoiser with random weights.

    Args:
        latent_channels: channels of a latent.
        latent_size: edge of a view's latents.
        width: width of the tokens, a multiple of 64.
        layers: number of transformer blocks.
        text_channels: length of a text token.
        patch: edge of the square of latents that makes a token.
        condition_channels: of an image or a control map of view 0, see :mod:`~diffsplat.models.condition_encoder`; 0
            for a denoiser of text alone.

    Raises:
        ValueError: the width is no multiple of 64.
    """
    require(not width % 64, "the denoiser's width", width, "a multiple of 64")
    return MultiViewPixArt(
        num_attention_heads=width // 64,
        attention_head_dim=64,
        in_channels=latent_channels + PLUCKER_CHANNELS + condition_channels,
        out_channels=latent_channels,
        num_layers=layers,
        sample_size=latent_size,
        patch_size=patch,
        caption_channels=text_channels,
    )


class Block(nn.Module):
    """Self-attention over all views, cross-attention to the text, and a feed-forward layer.

    The first and the last are modulated by the noise level ("adaLN-single", section 2.3 of the paper).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn1 = Attention(width, heads)
        self.attn2 = Attention(width, heads)
        self.ff = FeedForward(width)
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def forward(self, tokens: Tensor, modulation: Tensor, text: Tensor, text_mask: Tensor | None) -> Tensor:
        """``[B, N, D]`` tokens to the same shape.

        Args:
            tokens: of all views.
            modulation: ``[B, 6, D]`` from :class:`NoiseLevelEmbedding`.
            text: ``[B, T, D]``.
            text_mask: ``[B, T]`` bool.
        """
        shift, scale, gate, ff_shift, ff_scale, ff_gate = (self.scale_shift_table + modulation).chunk(
            6, dim=1
        )
        normed = modulated(tokens, shift, scale)
        tokens = tokens + gate * self.attn1(normed, normed)
        tokens = tokens + self.attn2(tokens, text, text_mask)
        return tokens + ff_gate * self.ff(modulated(tokens, ff_shift, ff_scale))


class Attention(nn.Module):
    """Multi-head attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, tokens: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[B, N, D]`` tokens attend to ``context [B, M, D]`` where ``mask [B, M]`` is True."""
        queries, keys, values = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projected in (self.to_q(tokens), self.to_k(context), self.to_v(context))
        )
        mixed = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=None if mask is None else mask[:, None, None]
        )
        return self.to_out(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two layers, four times as wide between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GeluLayer(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B, N, D]`` to the same shape."""
        return self.net(tokens)


class GeluLayer(nn.Module):
    """A linear layer and its activation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[..., inputs]`` to ``[..., outputs]``."""
        return functional.gelu(self.proj(tokens), approximate="tanh")


class TwoLayers(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, inputs: int, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, width)
        self.activation = activation
        self.linear_2 = nn.Linear(width, width)

    def forward(self, values: Tensor) -> Tensor:
        """``[..., inputs]`` to ``[..., width]``."""
        return self.linear_2(self.activation(self.linear_1(values)))


class NoiseLevelEmbedding(nn.Module):
    """What the noise level does to every block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.emb = nn.ModuleDict({"timestep_embedder": TwoLayers(_NOISE_CHANNELS, width, nn.SiLU())})
        self.linear = nn.Linear(width, 6 * width)

    def forward(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, 6, D]`` modulation of the blocks and ``[B, D]`` embedding of timesteps ``[B]``."""
        half = _NOISE_CHANNELS // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=timestep.device) / half)
        angles = timestep[:, None].float() * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.linear.weight.dtype)
        embedded = self.emb["timestep_embedder"](waves)
        return self.linear(functional.silu(embedded)).unflatten(-1, (6, -1)), embedded


class PatchEmbedding(nn.Module):
    """Squares of latents to tokens, with sines of their place in the view added."""

    def __init__(self, channels: int, width: int, patch: int, size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)
        scale = max(size // _POSITION_BASE, 1)
        self.register_buffer("positions", sine_positions(size // patch, width, scale), persistent=False)
        self.positions: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """``[B, C, h, w]`` to ``[B, N, D]``."""
        return self.proj(images).flatten(2).transpose(1, 2) + self.positions


def modulated(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer-normalised tokens ``[B, N, D]``, scaled and shifted by ``[B, 1, D]``."""
    return functional.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale) + shift


def sine_positions(side: int, width: int, scale: float) -> Tensor:
    """``[N, D]`` sines and cosines of column and row of ``side x side`` tokens."""
    places = torch.arange(side, dtype=torch.float64) / scale
    channels = torch.arange(width // 4, dtype=torch.float64)
    angles = torch.outer(places, 10000 ** (-channels / (width / 4)))
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns, rows = waves.repeat(side, 1), waves.repeat_interleave(side, dim=0)
    return torch.cat([columns, rows], dim=1).float()
