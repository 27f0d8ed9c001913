"""The options of a generation, described once for Python, the command line and the API. Needs no torch."""

from dataclasses import asdict, dataclass
from functools import cache
from math import inf
from typing import Annotated, Any, get_args, get_type_hints

from tyro.conf import FlagCreatePairsOff, Positional, arg

from diffsplat.errors import InvalidInputError
from diffsplat.pretrained.backbones import Sampler
from diffsplat.pretrained.model_folders import SamplingDefaults, is_number

MAX_PROMPT_LENGTH = 1000
"""Characters of a prompt."""

_MAX_SEED = 2**63 - 1
_OF_MODEL = "(default: the model's)"


@dataclass(frozen=True)
class Bounds:
    """Finite numbers that an option accepts, both ends included.

    Args:
        least: the smallest.
        most: the largest.
        whole: whether only integers are accepted.
    """

    least: float
    most: float = inf
    whole: bool = False

    def check(self, name: str, value: Any) -> None:
        """Refuse a number out of bounds.

        Raises:
            ValueError: names the option, the value and what was expected.
        """
        right_kind = isinstance(value, int) or not self.whole
        if is_number(value) and right_kind and self.least <= value <= self.most and value != inf:
            return
        kind = "a whole number" if self.whole else "a finite number"
        bounds = f"of at least {self.least}" if self.most == inf else f"from {self.least} to {self.most}"
        raise InvalidInputError(f"the {name.replace('_', ' ')} is {value!r}, expected {kind} {bounds}")


@dataclass(frozen=True)
class Generation:
    """What to generate and how. None stands for the model's default.

    A field added here, with its docstring, is an option of :class:`~diffsplat.pipelines.DiffSplatPipeline`, of
    ``diffsplat generate`` and of the API.

    Raises:
        ValueError: for a value that is out of bounds.
    """

    prompts: Annotated[
        Positional[tuple[str, ...]], arg(name="prompt", metavar="PROMPT ...", help_behavior_hint="")
    ] = ()
    """What to generate, for instance "a red armchair"; put each of several in quotes."""
    negative_prompt: Annotated[str, arg(metavar="TEXT", help_behavior_hint="")] = ""
    """What to steer away from."""
    seed: Annotated[int, Bounds(0, _MAX_SEED, whole=True), arg(metavar="N")] = 0
    """Random seed of a prompt's first object; the same seed gives the same object."""
    count: Annotated[int, Bounds(1, whole=True), arg(metavar="N")] = 1
    """Objects of each prompt, with consecutive seeds."""
    steps: Annotated[int | None, Bounds(1, whole=True), arg(metavar="N", help_behavior_hint=_OF_MODEL)] = None
    """Denoising steps."""
    sampler: Annotated[Sampler | None, arg(help_behavior_hint=_OF_MODEL)] = None
    """Sampling method."""
    guidance: Annotated[float | None, Bounds(0, 1000), arg(metavar="SCALE", help_behavior_hint=_OF_MODEL)] = (
        None
    )
    """Scale of classifier-free guidance, how closely to follow the prompt; 1 or less for none. The last steps, of
    a model's refiner, have a scale of their own."""
    least_guidance: Annotated[float, Bounds(0, 1000), arg(metavar="SCALE")] = 1.0
    """With an image, guidance scale of the side that it shows; on the opposite side it reaches the full scale."""
    elevation: Annotated[
        float | None,
        Bounds(-90, 90),
        arg(metavar="DEGREES", help_behavior_hint="(default: the model's; of an image: estimated)"),
    ] = None
    """Angle above the horizon of the generated views, in degrees."""
    control_scale: Annotated[float, Bounds(0, 1000), arg(metavar="SCALE")] = 1.0
    """How strongly to follow the control map."""
    guess_mode: Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")] = False
    """Let the control map act without the unconditional half of the guidance."""
    unshifted: Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")] = False
    """With an image and SD3, leave the image's latents unshifted, as the original's inference did; its training
    shifted them."""

    def __post_init__(self) -> None:
        for prompt in self.prompts:
            _check_text("prompt", prompt)
        _check_text("negative prompt", self.negative_prompt)
        for name, bounds in option_bounds().items():
            value = getattr(self, name)
            if value is not None:
                bounds.check(name, value)
        Bounds(0, _MAX_SEED, whole=True).check("last seed", self.seed + self.count - 1)
        if self.sampler is not None and self.sampler not in get_args(Sampler):
            known = ", ".join(get_args(Sampler))
            raise InvalidInputError(f"the sampler is {self.sampler!r}, expected one of: {known}")

    @property
    def objects(self) -> tuple[tuple[str, int], ...]:
        """Prompt and seed of every object: all objects of the first prompt, then those of the second."""
        return tuple(
            (prompt, seed) for prompt in self.prompts for seed in range(self.seed, self.seed + self.count)
        )

    def resolved(self, defaults: SamplingDefaults, *, from_image: bool = False) -> "ResolvedGeneration":
        """Put the model's defaults in place of None.

        Args:
            defaults: the model's.
            from_image: there is a condition image. Then prompts may be empty, and an elevation that was not given
                remains None: the pipeline estimates it.

        Raises:
            ValueError: without a prompt and an image.
        """
        if not self.prompts and not from_image:
            raise InvalidInputError("no prompt was given, expected a description such as 'a red armchair'")
        if not from_image and not all(prompt.strip() for prompt in self.prompts):
            raise InvalidInputError("the prompt is empty, expected a description such as 'a red armchair'")
        values = asdict(self)
        of_model = {
            "prompts": ("",),
            "steps": defaults.steps,
            "guidance": defaults.guidance,
            "elevation": None if from_image else defaults.elevation_deg,
        }
        missing = {name: value for name, value in of_model.items() if values[name] in (None, ())}
        return ResolvedGeneration(**values | missing)


@dataclass(frozen=True)
class ResolvedGeneration(Generation):
    """A generation with every default filled in; the elevation is None until it is estimated from an image."""

    steps: int = SamplingDefaults.steps
    guidance: float = SamplingDefaults.guidance

    @property
    def guided(self) -> bool:
        """Whether there is classifier-free guidance."""
        return self.guidance > 1

    @property
    def texts(self) -> list[str]:
        """Every text that has to be encoded."""
        return [*self.prompts, *([self.negative_prompt] if self.guided else [])]

    @property
    def elevation_deg(self) -> float:
        """The elevation.

        Raises:
            ValueError: while it is unknown.
        """
        if self.elevation is None:
            raise InvalidInputError(
                "the elevation of the image is unknown, expected an elevation or its estimator"
            )
        return self.elevation


@cache
def option_bounds() -> dict[str, Bounds]:
    """Bounds of the options that are numbers."""
    hints = get_type_hints(Generation, include_extras=True)
    return {
        name: part
        for name, hint in hints.items()
        for part in getattr(hint, "__metadata__", ())
        if isinstance(part, Bounds)
    }


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise InvalidInputError(f"the {name} is {text!r}, expected a text")
    if len(text) > MAX_PROMPT_LENGTH:
        raise InvalidInputError(
            f"the {name} has {len(text)} characters, expected at most {MAX_PROMPT_LENGTH}"
        )
