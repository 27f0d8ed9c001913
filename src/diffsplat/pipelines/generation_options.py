"""The options of a generation, described once for Python, the command line and the API. Needs no torch."""

from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import pairwise
from math import inf
from typing import Annotated, Any, Literal, Self, get_args, get_type_hints

from tyro.conf import FlagCreatePairsOff, Positional, Suppress, arg

from diffsplat.errors import InvalidInputError
from diffsplat.pretrained.model_folders import SamplingDefaults, is_number
from diffsplat.pretrained.release_catalogue import Sampler

MAX_PROMPT_LENGTH = 1000
"""Characters of a prompt."""

NoiseDevice = Literal["cpu", "cuda"]

OF_SEVERAL_OBJECTS = ("prompts", "negative_prompts", "seeds")
"""Options that a request for one prompt does not have."""

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
            ValueError: naming the option and its bounds.
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
    negative_prompts: Annotated[tuple[str, ...], arg(metavar="TEXT ...", help_behavior_hint="")] = ()
    """What each prompt steers away from, one for each, instead of one for all."""
    seed: Annotated[int, Bounds(0, _MAX_SEED, whole=True), arg(metavar="N")] = 0
    """Random seed of a prompt's first object; the same seed gives the same object."""
    count: Annotated[int, Bounds(1, 1_000_000, whole=True), arg(metavar="N")] = 1
    """Objects of each prompt, with consecutive seeds."""
    seeds: Annotated[tuple[int, ...], arg(metavar="N ...", help_behavior_hint="")] = ()
    """A seed for each object, instead of consecutive ones: the objects of the first prompt, then the next."""
    steps: Annotated[int | None, Bounds(1, whole=True), arg(metavar="N", help_behavior_hint=_OF_MODEL)] = None
    """Denoising steps."""
    timesteps: Annotated[tuple[float, ...], arg(metavar="T ...", help_behavior_hint="")] = ()
    """Timestep of every step, from 999 down, instead of even ones; for samplers that take them."""
    sigmas: Annotated[tuple[float, ...], arg(metavar="SIGMA ...", help_behavior_hint="")] = ()
    """Noise level of every step, falling, likewise."""
    sampler: Annotated[
        Sampler | None, arg(metavar="|".join(get_args(Sampler)), help_behavior_hint=_OF_MODEL)
    ] = None
    """Sampling method; lcm and tcd are for few-step LoRA files."""
    eta: Annotated[
        float | None, Bounds(0, 1), arg(metavar="ETA", help_behavior_hint="(default: the sampler's)")
    ] = None
    """Share of new noise in every step of ddim and tcd; ddim has none by default, the original code had 1."""
    guidance: Annotated[float | None, Bounds(0, 1000), arg(metavar="SCALE", help_behavior_hint=_OF_MODEL)] = (
        None
    )
    """Scale of classifier-free guidance, how closely to follow the prompt; 1 or less for none. The last steps, of
    a model's refiner, have a scale of their own."""
    guidance_rescale: Annotated[float, Bounds(0, 1), arg(metavar="SHARE")] = 0.0
    """How far to bring the guided prediction back to the contrast of the unguided one, against overexposure."""
    least_guidance: Annotated[float, Bounds(0, 1000), arg(metavar="SCALE")] = 1.0
    """With an image, guidance scale of the side that it shows; on the opposite side it reaches the full scale."""
    elevation: Annotated[
        float | None,
        Bounds(-90, 90),
        arg(metavar="DEGREES", help_behavior_hint="(default: the model's; of an image: estimated)"),
    ] = None
    """Angle above the horizon of the generated views, in degrees."""
    clip_skip: Annotated[int | None, Bounds(1, 11, whole=True), arg(metavar="N", help_behavior_hint="")] = (
        None
    )
    """Layers of a CLIP text encoder to leave out at its end, for sd15 and sd35m."""
    noise_device: NoiseDevice = "cpu"
    """Where noise is drawn. On the CPU a seed gives the same object everywhere; cuda has the noise that the
    original's published seeds stand for."""
    control_scale: Annotated[float, Bounds(0, 1000), arg(metavar="SCALE")] = 1.0
    """How strongly to follow the control map."""
    guess_mode: Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")] = False
    """Let the control map act without the unconditional half of the guidance."""
    lora_scales: Suppress[dict[str, float] | None] = None
    """Strength of each LoRA file by its name, instead of what they were loaded with; one that is absent is not used."""
    unshifted: Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")] = False
    """With an image and SD3, leave the image's latents unshifted, as the original's inference did; its training
    shifted them."""
    unprojected: Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")] = False
    """With an image or a control map, leave the first view as the networks make it; that of the embedded model
    otherwise takes over the colours of an image, the shape that a map tells, and the outline of either."""
    literal: Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")] = False
    """Take long prompts as they are; the embedded model otherwise reads them as the object and colour they name."""
    original_rotations: Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")] = False
    """Shape the Gaussians as the original's rasteriser does, which does not normalise their quaternions; viewers do."""

    def __post_init__(self) -> None:
        for prompt in self.prompts:
            _check_text("prompt", prompt)
        for prompt in (self.negative_prompt, *self.negative_prompts):
            _check_text("negative prompt", prompt)
        for name, bounds in option_bounds().items():
            value = getattr(self, name)
            if value is not None:
                bounds.check(name, value)
        for seed in (*self.seeds, self.seed + self.count - 1):
            Bounds(0, _MAX_SEED, whole=True).check("last seed" if not self.seeds else "seed", seed)
        for name, scale in (self.lora_scales or {}).items():
            Bounds(-1000, 1000).check(f"strength of {name!r}", scale)
        _check_falling("timesteps", self.timesteps, 1000)
        _check_falling("sigmas", self.sigmas, inf)
        for name, kind in (("sampler", Sampler), ("noise_device", NoiseDevice)):
            value, known = getattr(self, name), get_args(kind)
            if value is not None and value not in known:
                raise InvalidInputError(
                    f"the {name.replace('_', ' ')} is {value!r}, expected one of: {', '.join(known)}"
                )

    @property
    def objects(self) -> tuple[tuple[str, int], ...]:
        """Prompt and seed of every object: all objects of the first prompt, then those of the second."""
        return tuple(
            (prompt, seed)
            for prompt, seeds in zip(self.prompts, self.seeds_of_prompts, strict=True)
            for seed in seeds
        )

    @property
    def seeds_of_prompts(self) -> tuple[tuple[int, ...], ...]:
        """The seeds of every prompt's objects."""
        if not self.seeds:
            return (tuple(range(self.seed, self.seed + self.count)),) * len(self.prompts)
        each = len(self.seeds) // max(1, len(self.prompts))
        return tuple(self.seeds[start : start + each] for start in range(0, len(self.seeds), each))

    @property
    def negatives(self) -> tuple[str, ...]:
        """Negative prompt of every object."""
        of_prompts = self.negative_prompts or (self.negative_prompt,) * len(self.prompts)
        return tuple(
            negative for negative, seeds in zip(of_prompts, self.seeds_of_prompts, strict=True) for _ in seeds
        )

    def single(self, number: int) -> Self:
        """The generation of one of the objects alone, by its place in :attr:`objects`."""
        prompt, seed = self.objects[number]
        return replace(
            self,
            prompts=(prompt,),
            negative_prompt=self.negatives[number],
            negative_prompts=(),
            seed=seed,
            seeds=(),
            count=1,
        )

    def resolved(self, defaults: SamplingDefaults, *, from_image: bool = False) -> "ResolvedGeneration":
        """Put the model's defaults in place of None.

        Args:
            defaults: the model's.
            from_image: there is a condition image. Then prompts may be empty, and an elevation that was not given
                remains None: the pipeline estimates it.

        Raises:
            ValueError: without a prompt and an image, or for options that contradict each other or the model.
        """
        if not self.prompts and not from_image:
            raise InvalidInputError("no prompt was given, expected a description such as 'a red armchair'")
        if not from_image and not all(prompt.strip() for prompt in self.prompts):
            raise InvalidInputError("the prompt is empty, expected a description such as 'a red armchair'")
        prompts = self.prompts or ("",)
        if self.sampler == "tcd" and defaults.flow_matched:
            raise InvalidInputError(
                "the sampler is 'tcd' and the model predicts a flow, expected another such as 'lcm'"
            )
        values = asdict(self)
        placed = self._placed_steps()
        of_model = {
            "prompts": prompts,
            "steps": defaults.steps,
            "guidance": defaults.guidance,
            "elevation": None if from_image else defaults.elevation_deg,
        }
        missing = {name: value for name, value in of_model.items() if values[name] in (None, ())}
        counted: dict[str, Any] = {"steps": placed, "count": self._seeds_a_prompt(len(prompts))}
        counts = {name: value for name, value in counted.items() if value is not None}
        return ResolvedGeneration(**values | missing | counts)

    def _placed_steps(self) -> int | None:
        """How many steps the timesteps or sigmas place, None where none were given."""
        if self.timesteps and self.sigmas:
            raise InvalidInputError("timesteps and sigmas were both given, expected one of them")
        placed = len(self.timesteps or self.sigmas) or None
        if placed is not None and self.steps not in (None, placed):
            raise InvalidInputError(
                f"steps is {self.steps} and {placed} were placed, expected the same number"
            )
        return placed

    def _seeds_a_prompt(self, prompts: int) -> int | None:
        """How many seeds a prompt has, None where they were not listed."""
        if self.negative_prompts and len(self.negative_prompts) != prompts:
            raise InvalidInputError(
                f"{len(self.negative_prompts)} negative prompts were given for {prompts} prompts, expected as many"
            )
        if not self.seeds:
            return None
        each, rest = divmod(len(self.seeds), prompts)
        if rest or self.count not in (1, each):
            raise InvalidInputError(
                f"{len(self.seeds)} seeds were given for {prompts} prompts and a count of {self.count}, expected "
                "one for each object"
            )
        return each


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
    def says_nothing(self) -> bool:
        """Whether text guides nowhere, since every prompt is the one to be guided away from, such as none at all."""
        return [prompt for prompt, _ in self.objects] == list(self.negatives)

    @property
    def sampled_by_default(self) -> bool:
        """Whether nothing but the number of steps and the guidance scale says how it is sampled."""
        placed = self.sampler or self.timesteps or self.sigmas
        guided_otherwise = self.negative_prompt or self.negative_prompts or self.guidance_rescale
        return not (placed or guided_otherwise or self.eta is not None)

    @property
    def texts(self) -> list[str]:
        """Every text that has to be encoded."""
        negative = self.negative_prompts or (self.negative_prompt,)
        return [*self.prompts, *(negative if self.guided else ())]

    @property
    def elevation_deg(self) -> float:
        """The elevation, refused while it is unknown.

        Raises:
            ValueError: it is unknown.
        """
        if self.elevation is None:
            raise InvalidInputError("the elevation of the image is unknown, expected one or its estimator")
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


def _check_falling(name: str, values: tuple[float, ...], most: float) -> None:
    for value in values:
        if not is_number(value) or not 0 <= value <= most or value == inf:
            raise InvalidInputError(f"{value!r} is among the {name}, expected finite numbers of at least 0")
    if any(after >= before for before, after in pairwise(values)):
        raise InvalidInputError(f"the {name} are {values}, expected every one below the one before")
