"""What may be asked of a pipeline. Needs no torch, so that a command line can refuse bad input at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from diffsplat.errors import InvalidInputError
from diffsplat.pretrained.catalogue import Sampler
from diffsplat.pretrained.model_folders import (
    DEFAULT_ELEVATION_DEG,
    DEFAULT_GUIDANCE,
    DEFAULT_STEPS,
    is_number,
)

MAX_PROMPT_LENGTH = 1000
"""Characters of a prompt."""

_MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class GenerationRequest:
    """Prompts and how to sample them.

    Args:
        prompts: texts of 1 to 1,000 characters.
        negative_prompt: text to steer away from; empty for none.
        seed: seed of a prompt's first object; its next objects take the seeds that follow.
        steps: denoising steps, at least 1.
        guidance: classifier-free guidance scale (Ho and Salimans 2022); up to 1 there is no guidance. Below a
            refiner's level the model's own scale holds.
        count: objects of each prompt, at least 1.
        elevation_deg: degrees above the horizon of the generated views.
        from_image: a picture says what to generate too, and prompts may be empty.
        least_guidance: with a picture, the scale in its own view; from there it rises to ``guidance``.
        sampler: by name; None for the model's own.
        control_scale: factor of what a ControlNet adds.
        guess_mode: a ControlNet acts without guidance's unconditional half.
        shifted: shift the latents of a picture for an SD3 network, as in training.

    Raises:
        ValueError: for anything outside these ranges.
    """

    prompts: tuple[str, ...]
    negative_prompt: str = ""
    seed: int = 0
    steps: int = DEFAULT_STEPS
    guidance: float = DEFAULT_GUIDANCE
    count: int = 1
    elevation_deg: float = DEFAULT_ELEVATION_DEG
    from_image: bool = False
    least_guidance: float = 1.0
    sampler: Sampler | None = None
    control_scale: float = 1.0
    guess_mode: bool = False
    shifted: bool = True

    def __post_init__(self) -> None:
        if not self.prompts:
            raise InvalidInputError("no prompt was given, expected at least one")
        for prompt in self.prompts:
            _check_text("prompt", prompt)
            if not prompt.strip() and not self.from_image:
                raise InvalidInputError(
                    "the prompt is empty, expected a description such as 'a red armchair'"
                )
        _check_text("negative prompt", self.negative_prompt)
        _check_whole("seed", self.seed, least=0)
        _check_whole("steps", self.steps, least=1)
        _check_whole("count", self.count, least=1)
        if self.seed + self.count - 1 > _MAX_SEED:
            raise InvalidInputError(f"the seed is {self.seed}, expected less than 2 to the power of 63")
        for name in ("guidance", "least_guidance", "control_scale"):
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value < math.inf:
                plain = name.replace("_", " ")
                raise InvalidInputError(f"the {plain} is {value}, expected a finite number of at least 0")
        if self.sampler is not None and self.sampler not in get_args(Sampler):
            known = ", ".join(get_args(Sampler))
            raise InvalidInputError(f"the sampler is {self.sampler!r}, expected one of: {known}")
        if not is_number(self.elevation_deg) or not -90 <= self.elevation_deg <= 90:
            raise InvalidInputError(f"the elevation is {self.elevation_deg}, expected -90 to 90 degrees")

    @property
    def objects(self) -> tuple[tuple[str, int], ...]:
        """Prompt and seed of every object: all objects of the first prompt, then those of the second."""
        return tuple(
            (prompt, seed) for prompt in self.prompts for seed in range(self.seed, self.seed + self.count)
        )


def prompts_of(prompt: str | Sequence[str]) -> tuple[str, ...]:
    """One prompt or several, as a tuple."""
    return (prompt,) if isinstance(prompt, str) else tuple(prompt)


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise InvalidInputError(f"the {name} is {text!r}, expected a text")
    if len(text) > MAX_PROMPT_LENGTH:
        raise InvalidInputError(
            f"the {name} has {len(text)} characters, expected at most {MAX_PROMPT_LENGTH}"
        )


def _check_whole(name: str, value: object, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidInputError(f"{name} is {value!r}, expected a whole number of at least {least}")
