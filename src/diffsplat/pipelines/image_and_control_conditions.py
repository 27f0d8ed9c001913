"""Images and control maps as conditions of a generation."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from diffsplat.errors import require
from diffsplat.images.edge_outline import edge_outline
from diffsplat.images.image_cutout_and_framing import (
    ConditionImage,
    ImageSource,
    load_image,
    prepare_condition_image,
    square_on_white,
)
from diffsplat.images.image_framing_options import ImageFraming

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from torch import FloatTensor

_INK = 0.9
"""Grey below which a pixel of an edge map counts as an edge: thin lines of larger maps are pale once made smaller."""

_MOST_BLACK = 0.75
"""Share of black pixels above which an edge map is taken to be one of white edges."""


@dataclass(frozen=True)
class ConditionImages:
    """Condition images of a generation, each ``[3, S, S]`` sRGB 0..1 or absent; the sizes may differ.

    Args:
        image: the object from the first view, on white.
        control: control map of the first view.
        prompt: image prompt of an IP-Adapter.
        outline: ``[1, S, S]`` True where the object is in the first view; None where that is unknown.
    """

    image: Tensor | None = None
    control: Tensor | None = None
    prompt: Tensor | None = None
    outline: Tensor | None = None

    @property
    def given(self) -> bool:
        """Whether there is an image or a control map."""
        return self.image is not None or self.control is not None

    @property
    def nbytes(self) -> int:
        """Memory that they take."""
        return sum(
            each.nbytes for each in (self.image, self.control, self.prompt, self.outline) if each is not None
        )


def condition_image(
    source: ImageSource, size: int, *, cut_out: bool, framing: ImageFraming | None = None
) -> ConditionImage:
    """An image of the model's size.

    Args:
        source: a file, a PIL image, or a tensor ``[4, H, W]`` with alpha or ``[3, H, W]`` that is already
            prepared and only resized; sRGB 0..1.
        size: edge in pixels.
        cut_out: remove the background of a file or PIL image unless it has transparency, and centre the object on
            white with a border; otherwise the image is only made square with white and resized.
        framing: how an object is cut out and framed.

    Raises:
        ValueError: when it is not an image, or shows no object.
        ImportError: when a background has to be removed and rembg is not installed.
    """
    prepared = isinstance(source, Tensor) and source.ndim == 3 and source.shape[0] == 3
    if cut_out and not prepared:
        return prepare_condition_image(source, size=size, framing=framing)
    return square_on_white(load_image(source), size=size)


def outline_of_edges(control: Tensor) -> Tensor | None:
    """``[1, S, S]`` True on the object of an edge map ``[3, S, S]`` 0..1; None where the edges tell no outline.

    Raises:
        ValueError: when the map is mostly black, as ones of white edges are.
    """
    grey = control.mean(dim=0, keepdim=True)
    black = float((grey < 0.5).float().mean())
    expected = f"black edges on white, at most {_MOST_BLACK:.0%}"
    require(black <= _MOST_BLACK, "the black share of the edge map", f"{black:.0%}", expected)
    return edge_outline(grey < _INK)


def image_latents(
    vae: "AutoencoderKL", images: Tensor, *, shifted: bool = True, sample: bool = False
) -> Tensor:
    """Latents of images as image-conditioned denoisers get them.

    Args:
        vae: the image-diffusion model's own ``AutoencoderKL``.
        images: ``[B, 3, H, W]`` sRGB 0..1.
        shifted: subtract the shift of an SD3 autoencoder, as training did. The original's inference did not.
        sample: draw from the posteriors, as training does; their modes otherwise.

    Returns:
        ``[B, C, H / 8, W / 8]`` float32, scaled.
    """
    pixels = cast("FloatTensor", images.to(vae.dtype) * 2 - 1)
    posterior = vae.encode(pixels, return_dict=False)[0]
    latents = (posterior.sample() if sample else posterior.mode()).float()
    shift = (vae.config["shift_factor"] or 0.0) if shifted else 0.0
    return (latents - shift) * vae.config["scaling_factor"]


def control_views(control: Tensor, views: int) -> Tensor:
    """``[B, V, 3, H, W]`` control images ``[B, 3, H, W]`` of the first view, ones for the others."""
    blank = torch.ones_like(control).unsqueeze(1).expand(-1, views - 1, -1, -1, -1)
    return torch.cat([control.unsqueeze(1), blank], dim=1)
