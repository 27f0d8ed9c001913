"""Forward pass of every denoiser, and of ControlNets, over the latents of several views."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from diffsplat.errors import InvalidInputError
from diffsplat.models.denoiser_families import network_family
from diffsplat.models.text.text_condition import TextCondition


@dataclass(frozen=True)
class Residuals:
    """What a ControlNet adds to a UNet's skip connections and to its middle.

    Args:
        down: one tensor ``[B * V, ...]`` for every skip connection.
        middle: ``[B * V, ...]``.
    """

    down: tuple[Tensor, ...]
    middle: Tensor

    @classmethod
    def sum_of(cls, parts: Sequence["Residuals"]) -> "Residuals":
        """The residuals of several ControlNets added up."""
        down = zip(*(part.down for part in parts), strict=True)
        middle = torch.stack([part.middle for part in parts]).sum(dim=0)
        return cls(tuple(torch.stack(connection).sum(dim=0) for connection in down), middle)


def network_output(
    network: Any, inputs: Tensor, timestep: Tensor, text: TextCondition, residuals: Residuals | None = None
) -> Tensor:
    """Run a network whose views were set by :func:`~diffsplat.models.multiview_attention.set_multiview_attention`.

    Args:
        network: ``MultiViewPixArt``, or of diffusers ``UNet2DConditionModel``, ``PixArtTransformer2DModel`` or
            ``SD3Transformer2DModel``.
        inputs: ``[B, V, C + E, h, w]`` noisy latents and extra channels of every view.
        timestep: ``[B]`` as the network's scheduler counts, shared by the views of an object.
        text: of ``B`` prompts.
        residuals: from a ControlNet, for a UNet.

    Returns:
        ``[B, V, C', h, w]`` float32, all output channels of the network.
    """
    views, kind = inputs.shape[1], cast(torch.dtype, network.dtype)
    match network_family(network):
        case "multiview":
            tokens, mask = _shortened(text)
            return network(inputs.to(kind), timestep, tokens.to(kind), mask).float()
        case "unet":
            arguments = _unet_arguments(text, residuals, views, kind)
            arguments |= _of_every_view(timestep, text.tokens, views, kind)
        case "pixart":
            tokens, mask = _shortened(text)
            arguments = _of_every_view(timestep, tokens, views, kind)
            if mask is not None:
                arguments["encoder_attention_mask"] = mask.to(kind).repeat_interleave(views, dim=0)
            arguments["added_cond_kwargs"] = {"resolution": None, "aspect_ratio": None}
        case "sd3":
            arguments = {
                "timestep": timestep,
                "encoder_hidden_states": text.tokens.to(kind),
                "pooled_projections": _pooled(text).to(kind),
            }
    output = network(inputs.flatten(0, 1).to(kind), **arguments, return_dict=False)
    return output[0].unflatten(0, (-1, views)).float()


def control_residuals(
    controlnet: Any,
    inputs: Tensor,
    timestep: Tensor,
    text: TextCondition,
    control: Tensor,
    *,
    scale: float = 1.0,
    guess_mode: bool = False,
) -> Residuals:
    """Run a ControlNet (Zhang et al. 2023) over several views.

    That of diffusers takes no mask of the text: it also attends to the padding of prompts that have one.

    Args:
        controlnet: ``ControlNetModel`` of diffusers with its views set, or a ``ModuleList`` of several, whose residuals
            are added.
        inputs: ``[B, V, C + E, h, w]`` what the UNet gets.
        timestep: ``[B]``.
        text: of ``B`` prompts.
        control: ``[B, V, 3, H, W]`` control images 0..1; those of several ControlNets as channels one after another.
        scale: factor of the residuals.
        guess_mode: shallow layers get smaller residuals (section 3.4 of the same paper).
    """
    if isinstance(controlnet, nn.ModuleList):
        return Residuals.sum_of(
            [
                control_residuals(part, inputs, timestep, text, image, scale=scale, guess_mode=guess_mode)
                for part, image in zip(controlnet, control.split(3, dim=2), strict=True)
            ]
        )
    views, kind = inputs.shape[1], cast(torch.dtype, controlnet.dtype)
    down, middle = controlnet(
        inputs.flatten(0, 1).to(kind),
        **_of_every_view(timestep, text.tokens, views, kind),
        controlnet_cond=control.flatten(0, 1).to(kind),
        conditioning_scale=scale,
        guess_mode=guess_mode,
        return_dict=False,
    )
    return Residuals(tuple(down), middle)


def control_channels(controlnet: Any) -> int:
    """Input channels of a ControlNet, or of several: those of the denoiser that it was trained for."""
    first: Any = controlnet[0] if isinstance(controlnet, nn.ModuleList) else controlnet
    return int(first.config["in_channels"])


def _of_every_view(timestep: Tensor, tokens: Tensor, views: int, kind: torch.dtype) -> dict[str, Any]:
    """Timesteps ``[B * V]`` and text tokens ``[B * V, T, D]``, as arguments of a network."""
    return {
        "timestep": timestep.repeat_interleave(views),
        "encoder_hidden_states": tokens.to(kind).repeat_interleave(views, dim=0),
    }


def _unet_arguments(
    text: TextCondition, residuals: Residuals | None, views: int, kind: torch.dtype
) -> dict[str, Any]:
    """Arguments of a UNet for the residuals of a ControlNet, an image prompt and the mask of a text."""
    arguments: dict[str, Any] = {}
    if residuals is not None:
        arguments["down_block_additional_residuals"] = residuals.down
        arguments["mid_block_additional_residual"] = residuals.middle
    if text.image is not None:
        features = text.image.to(kind).repeat_interleave(views, dim=0)
        arguments["added_cond_kwargs"] = {"image_embeds": [features.unsqueeze(1)]}
    if text.mask is not None:
        arguments["encoder_attention_mask"] = text.mask.repeat_interleave(views, dim=0)
    return arguments


def _shortened(text: TextCondition) -> tuple[Tensor, Tensor | None]:
    """Tokens and mask without the padding that is common to all prompts: it would be attended to with weight 0."""
    if text.mask is None:
        return text.tokens, None
    used = text.mask.any(dim=0).nonzero()
    longest = int(used[-1]) + 1 if len(used) else 1
    return text.tokens[:, :longest], text.mask[:, :longest]


def _pooled(text: TextCondition) -> Tensor:
    if text.pooled is None:
        raise InvalidInputError("this network needs a pooled text embedding, got none")
    return text.pooled
