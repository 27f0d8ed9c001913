"""Tensors, generators and callbacks that a caller of the pipeline brings, by their names in diffusers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffsplat.errors import InvalidInputError
from diffsplat.models.text.stored_prompts import StoredPrompts
from diffsplat.models.text.text_condition import TextCondition
from diffsplat.pipelines.denoising_loop import object_generators, object_noise
from diffsplat.pipelines.generation_options import Generation, NoiseDevice

StepEndCallback = Callable[[Any, int, Tensor, dict[str, Tensor]], Mapping[str, Tensor] | None]
"""``(pipeline, step, timestep, tensors) -> tensors`` that take the place of these."""

_SEEDS = 2**63
_NEGATIVE = "given negative embedding"


@dataclass(frozen=True)
class TensorInputs:
    """What takes the place of seeds and of the text encoder in a call.

    Args:
        generator: draws the noise; one for all objects, or one for each.
        latents: ``[B, V, C, h, w]`` standard normal noise to start from.
        prompt_embeds: ``[B, T, D]`` encoded prompts, instead of prompts.
        prompt_attention_mask: ``[B, T]`` where these count, for a model with such masks.
        pooled_prompt_embeds: ``[B, P]`` pooled vectors, for a model that takes them.
        negative_prompt_embeds: like ``prompt_embeds``, of the negative prompt; ``B`` or one.
        negative_prompt_attention_mask: likewise.
        negative_pooled_prompt_embeds: likewise.
        callback_on_step_end: called after every step with ``(pipeline, step, timestep, {"latents": ...})``; latents
            that it returns take the place of those.
    """

    generator: torch.Generator | Sequence[torch.Generator] | None = None
    latents: Tensor | None = None
    prompt_embeds: Tensor | None = None
    prompt_attention_mask: Tensor | None = None
    pooled_prompt_embeds: Tensor | None = None
    negative_prompt_embeds: Tensor | None = None
    negative_prompt_attention_mask: Tensor | None = None
    negative_pooled_prompt_embeds: Tensor | None = None
    callback_on_step_end: StepEndCallback | None = None

    def named(self, generation: Generation) -> Generation:
        """The generation with names for prompts that come as embeddings, and the seeds of the generators.

        Raises:
            ValueError: for prompts together with embeddings, or a wrong number of generators.
        """
        if self.prompt_embeds is not None:
            if any(generation.prompts):
                raise InvalidInputError("prompts and prompt_embeds were both given, expected one of them")
            names = tuple(f"given embedding {row + 1}" for row in range(len(self.prompt_embeds)))
            generation = replace(generation, prompts=names)
        if self.negative_prompt_embeds is not None:
            names = tuple(f"{_NEGATIVE} {row + 1}" for row in range(len(self.negative_prompt_embeds)))
            generation = (
                replace(generation, negative_prompt=names[0])
                if len(names) == 1
                else replace(generation, negative_prompts=names)
            )
        if self.generator is None:
            return generation
        count = len(generation.prompts or ("",)) * generation.count
        seeds = tuple(each.initial_seed() % _SEEDS for each in self._generators(count))
        return replace(generation, seeds=seeds)

    def encoded(self) -> StoredPrompts:
        """The given embeddings, by the names of :meth:`named`."""
        found: dict[str, TextCondition] = {}
        for name, prefix in (("given embedding", ""), (_NEGATIVE, "negative_")):
            tokens, mask, pooled = (
                getattr(self, prefix + part)
                for part in ("prompt_embeds", "prompt_attention_mask", "pooled_prompt_embeds")
            )
            if tokens is None:
                continue
            condition = TextCondition(tokens.float(), None if mask is None else mask.bool(), pooled)
            found |= {f"{name} {row + 1}": condition.take(slice(row, row + 1)) for row in range(len(tokens))}
        return StoredPrompts(found)

    def generators(self, seeds: tuple[int, ...], device: NoiseDevice) -> list[torch.Generator]:
        """A generator for each object, on a device that is there.

        Raises:
            ValueError: for ``cuda`` without a CUDA device, or a wrong number of generators.
        """
        if self.generator is not None:
            return self._generators(len(seeds))
        if device == "cuda" and not torch.cuda.is_available():
            raise InvalidInputError("the noise device is 'cuda', but torch sees none, expected 'cpu'")
        return object_generators(seeds, device)

    def noise(self, shape: tuple[int, ...], generators: Sequence[torch.Generator], objects: slice) -> Tensor:
        """``[B, *shape]`` the given latents of some objects, or noise of their generators."""
        if self.latents is None:
            return object_noise(shape, generators[objects])
        return self.latents[objects].float()

    def check_latents(self, shape: tuple[int, ...]) -> None:
        """Refuse latents of another shape than ``[B, V, C, h, w]``.

        Raises:
            ValueError: naming both shapes.
        """
        if self.latents is not None and tuple(self.latents.shape) != shape:
            raise InvalidInputError(f"the latents have shape {tuple(self.latents.shape)}, expected {shape}")

    def after_step(self, pipeline: Any, done: int, timestep: Tensor, latents: Tensor) -> Tensor:
        """The latents to go on with."""
        if self.callback_on_step_end is None:
            return latents
        returned = self.callback_on_step_end(pipeline, done, timestep, {"latents": latents}) or {}
        return returned.get("latents", latents)

    def _generators(self, count: int) -> list[torch.Generator]:
        if isinstance(self.generator, torch.Generator):
            return [self.generator] * count
        given = list(self.generator or ())
        if len(given) != count:
            raise InvalidInputError(f"got {len(given)} generators for {count} objects, expected as many")
        return given
