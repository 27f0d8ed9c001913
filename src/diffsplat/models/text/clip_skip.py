"""Leaving out the last layers of a CLIP text encoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from diffsplat.errors import InvalidInputError
from diffsplat.models.text.stored_prompts import StoredPrompts
from diffsplat.models.text.text_condition import PromptEncoder


def with_clip_skip(encoder: PromptEncoder, layers: int | None) -> PromptEncoder:
    """A text encoder without so many of its last layers, if it can do without them; None for none.

    Raises:
        ValueError: when it has too few, is not CLIP, or its prompts were encoded with another number left out.
    """
    if isinstance(encoder, StoredPrompts):
        if encoder.clip_skip != layers:
            raise InvalidInputError(
                f"clip_skip is {layers} and the prompts were encoded with {encoder.clip_skip}, expected the same"
            )
        return encoder
    if layers is None:
        return encoder
    clip: Any = encoder
    most: int = getattr(clip, "most_clip_skip", 0)
    if layers > most:
        raise InvalidInputError(
            f"clip_skip is {layers}, expected "
            + (f"at most {most}" if most else "none: the text encoder is not CLIP")
        )
    return partial(clip, clip_skip=layers)


@contextmanager
def last_layers_left_out(clip: Any, layers: int) -> Iterator[None]:
    """A CLIP text encoder of transformers without some of its last layers; its final norm stays."""
    transformer = getattr(clip, "text_model", clip).encoder
    whole = transformer.layers
    transformer.layers = whole[: len(whole) - layers]
    try:
        yield
    finally:
        transformer.layers = whole
