"""CLIP similarity and R-precision of images and their prompts (Radford et al. 2021; Poole et al. 2023)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.errors import InvalidInputError
from diffsplat.io.image_files import to_pixels


class ClipScorer:
    """A CLIP network with its tokenizer and the preparation of its images.

    Args:
        model: ``CLIPModel`` of transformers.
        tokenizer: its tokenizer.
        image_processor: its preparation of images.
    """

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any) -> None:
        self.model = model.eval()
        self._tokenizer = tokenizer
        self._image_processor = image_processor

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        """The CLIP model of a local folder, or of the hub by name; safetensors only.

        Raises:
            ValueError: when there is none, or it cannot be downloaded.
        """
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

        try:
            return cls(
                CLIPModel.from_pretrained(source, use_safetensors=True),
                CLIPTokenizer.from_pretrained(source),
                CLIPImageProcessor.from_pretrained(source),
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InvalidInputError(
                f"{str(source)!r} holds no CLIP model, expected a folder or a name of the hub: {reason}"
            ) from error

    @torch.no_grad()
    def images(self, images: Tensor) -> Tensor:
        """Unit vectors ``[N, D]`` of images ``[N, 3, H, W]`` 0..1, sRGB."""
        pixels = [to_pixels(image) for image in images]
        prepared = self._image_processor(images=pixels, return_tensors="pt")["pixel_values"]
        pooled = self.model.vision_model(pixel_values=prepared).pooler_output
        return functional.normalize(self.model.visual_projection(pooled), dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors ``[N, D]`` of texts; tokens beyond the network's length are cut off."""
        tokens = self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        pooled = self.model.text_model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output
        return functional.normalize(self.model.text_projection(pooled), dim=-1)


def clip_similarity(images: Tensor, texts: Tensor) -> Tensor:
    """``[B]`` mean cosine of an object's views ``[B, V, D]`` and its prompt ``[B, D]``, times 100."""
    return 100 * (images * texts.unsqueeze(1)).sum(dim=-1).mean(dim=1)


def r_precision(images: Tensor, pool: Tensor, own: Sequence[int]) -> Tensor:
    """``[B]`` share of an object's views whose nearest prompt of a pool is its own.

    Args:
        images: ``[B, V, D]`` unit vectors of views.
        pool: ``[P, D]`` unit vectors of distinct prompts; the more there are, the lower the figure.
        own: place of each object's prompt in the pool.
    """
    nearest = (images @ pool.T).argmax(dim=-1)
    return (nearest == torch.tensor(own, device=nearest.device).unsqueeze(1)).float().mean(dim=1)
