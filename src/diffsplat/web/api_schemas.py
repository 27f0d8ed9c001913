"""Schemas of the API's requests and answers, as pydantic models."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict, fields
from math import inf
from typing import Annotated, Any, Literal, Self, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from diffsplat.errors import InvalidInputError
from diffsplat.images.image_framing_options import BORDER, LARGEST_BORDER, Cutout, ImageFraming
from diffsplat.pipelines.generation_options import (
    MAX_PROMPT_LENGTH,
    OF_SEVERAL_OBJECTS,
    Generation,
    ResolvedGeneration,
    option_bounds,
)
from diffsplat.pretrained.release_catalogue import ControlKind, Sampler
from diffsplat.web.job_queue import Job, State
from diffsplat.web.model_worker import ServedModel
from diffsplat.web.result_files import FILE_KINDS
from diffsplat.web.server_limits import Limits

_MOST_MAPS = len(get_args(ControlKind))
_LONGEST_VALUE = 60
_LONGEST_DATA_URI_HEAD = 200


class _Documented(BaseModel):
    """Reads the docstrings of the options."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    generation: Generation


_DOCUMENTED: dict[str, Any] = _Documented.model_json_schema()["$defs"]["Generation"]["properties"]


def _option_fields(kind: type[Generation], *, required: bool = False) -> dict[str, Any]:
    """Fields of every option of a generation but those of several prompts: a request has one."""
    hints = get_type_hints(kind)
    return {
        entry.name: (
            hints[entry.name],
            Field(... if required else entry.default, **_described(entry.name, hints[entry.name])),
        )
        for entry in fields(kind)
        if entry.name not in OF_SEVERAL_OBJECTS
    }


def _described(name: str, hint: Any) -> dict[str, Any]:
    """Description and bounds of an option."""
    described: dict[str, Any] = {"description": " ".join(_DOCUMENTED[name]["description"].split())}
    if hint is str:
        described["max_length"] = MAX_PROMPT_LENGTH
    if (bounds := option_bounds().get(name)) is not None:
        described |= {"ge": bounds.least, "le": None if bounds.most == inf else bounds.most}
    return described


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="one sentence")


_GenerationOptions = create_model("GenerationOptions", **_option_fields(Generation))


class JobOptions(_GenerationOptions):
    """What to generate; an option that is absent or null takes the model's value."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt: str = Field(
        "",
        max_length=MAX_PROMPT_LENGTH,
        description="a description of the object; may be empty with an image",
    )
    prompts: list[Annotated[str, Field(max_length=MAX_PROMPT_LENGTH)]] | None = Field(
        None, description="several descriptions instead, in JSON; the job makes objects of each"
    )
    model: Annotated[str, Field(max_length=200)] | None = Field(
        None, description="one of GET /api/models; the first by default"
    )

    def generation(self) -> Generation:
        """The options of the library."""
        options = {name: getattr(self, name) for name in _GenerationOptions.model_fields}
        if self.prompts is None:
            return Generation(prompts=(self.prompt,), **options)
        if self.prompt or not self.prompts:
            raise InvalidInputError("prompts is empty or comes with a prompt, expected one of the two")
        return Generation(prompts=tuple(self.prompts), **options)


class FramingOptions(BaseModel):
    """How an object is cut out of its image and framed."""

    cutout: Cutout = Field(
        "auto",
        description="what removes the background: rembg (a network), plain (a background of one colour), none, "
        "or auto, rembg unless the image is transparent",
    )
    keep_framing: bool = Field(False, description="leave the object where and as large as it is in its image")
    border: float | None = Field(
        None, ge=0, le=LARGEST_BORDER, description=f"share of the edge that stays free; {BORDER} by default"
    )

    def framing(self) -> ImageFraming:
        """The options of the library."""
        return ImageFraming(self.cutout, keep_framing=self.keep_framing, border=self.border)


class JobRequest(JobOptions, FramingOptions):
    """Options, and images in base64 or as data URIs."""

    image: str | None = Field(None, description="PNG, JPEG or WebP file in base64: the object")
    control: str | Annotated[list[str], Field(min_length=1, max_length=_MOST_MAPS)] | None = Field(
        None,
        description="control map of the first view, in base64; several as a list, in the order of the model's name",
    )
    ip_adapter_image: str | None = Field(
        None, description="image as a prompt, in base64, for a model with an IP-Adapter"
    )


class CutOutRequest(FramingOptions):
    """An image in base64 or as a data URI."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, json_schema_extra={"required": ["image"]})

    image: str | None = Field(None, description="PNG, JPEG or WebP file in base64")


class ResultFile(BaseModel):
    """A file of an object."""

    suffix: str
    description: str
    url: str


class ResultView(BaseModel):
    """An object that was generated."""

    number: int
    prompt: str
    seed: int
    elevation: float = Field(description="degrees above the horizon of the generated views")
    splats: int = Field(description="how many Gaussians it has")
    notice: str | None = Field(
        description="one sentence when the model reads the prompt as another, or was trained on nothing like it"
    )
    files: list[ResultFile]


class JobView(create_model("ResolvedOptions", **_option_fields(ResolvedGeneration, required=True))):
    """A job at one moment, with the values that its options have."""

    id: str
    state: State
    model: str
    prompt: str = Field(description="the first of the prompts")
    prompts: list[str]
    made: float = Field(description="when it was accepted, in seconds since the epoch")
    position: int | None = Field(description="jobs before this one, while it waits")
    steps_done: int = Field(description="denoising steps done, of all objects")
    steps_in_all: int
    error: str | None = Field(description="why it failed, one sentence")
    notice: str | None = Field(description="the first notice of its results")
    images: dict[str, str] = Field(description="addresses of the images that it is made from, by name")
    results: list[ResultView]

    @classmethod
    def of(cls, job: Job, position: int | None) -> Self:
        """The view of a job."""
        options = asdict(job.generation)
        prompts = list(options.pop("prompts"))
        return cls(
            **options,
            id=job.id,
            state=job.state,
            model=job.model,
            prompt=prompts[0],
            prompts=prompts,
            made=job.made_s,
            position=position,
            steps_done=job.steps_done,
            steps_in_all=job.steps,
            error=job.error,
            notice=next((item.notice for item in job.results if item.notice), None),
            images={name: f"/api/jobs/{job.id}/images/{name}.png" for name in job.named_images},
            results=[
                ResultView(
                    number=number,
                    prompt=item.prompt,
                    seed=item.seed,
                    elevation=item.elevation_deg,
                    splats=item.splats.count,
                    notice=item.notice,
                    files=_files(job.id, number),
                )
                for number, item in enumerate(job.results)
            ],
        )


class Takes(BaseModel):
    """Inputs of a model besides the prompt."""

    image: bool
    control: tuple[ControlKind, ...] = Field(
        description="kinds of the control maps that a request has, in this order"
    )
    ip_adapter_image: bool
    reasons: dict[str, str] = Field(description="why an input is not accepted, by its name")


class ModelView(BaseModel):
    """A model that is served."""

    name: str
    takes: Takes
    steps: int = Field(description="denoising steps from text alone unless a request says otherwise")
    guidance: float = Field(description="guidance from text alone unless a request says otherwise")
    image_steps: int = Field(description="denoising steps with an image or a control map, likewise")
    image_guidance: float = Field(description="guidance with an image or a control map, likewise")
    elevation: float = Field(description="degrees above the horizon unless a request says otherwise")
    examples: list[str] = Field(description="prompts for objects that it was trained on")
    lora: dict[str, float] = Field(
        description="its LoRA files by name, with their strengths unless a request says"
    )

    @classmethod
    def of(cls, model: ServedModel) -> Self:
        """The view of a model."""
        pipe = model.pipe
        defaults, of_image = (pipe.defaults_for(conditioned=given) for given in (False, True))
        return cls(
            name=model.name,
            takes=Takes(
                image="image" not in model.reasons,
                control=model.controls,
                ip_adapter_image="ip_adapter_image" not in model.reasons,
                reasons=model.reasons,
            ),
            steps=defaults.steps,
            guidance=defaults.guidance,
            image_steps=of_image.steps,
            image_guidance=of_image.guidance,
            elevation=defaults.elevation_deg,
            lora=pipe.lora_scales,
            examples=[] if pipe.known_words is None else list(pipe.known_words.words.examples()),
        )


class LimitsView(BaseModel):
    """What the server allows."""

    steps: int
    count: int
    prompt_characters: int = MAX_PROMPT_LENGTH
    upload_bytes: int
    pixels: int
    keep_seconds: float

    @classmethod
    def of(cls, limits: Limits) -> Self:
        """The view of the limits."""
        return cls(
            steps=limits.max_steps,
            count=limits.max_count,
            upload_bytes=limits.max_upload_bytes,
            pixels=limits.max_pixels,
            keep_seconds=limits.keep_seconds,
        )


class FileKindView(BaseModel):
    """A kind of file that results can be downloaded as."""

    suffix: str
    description: str
    splats: bool = Field(description="whether it holds splats, or images of them")


class Catalogue(BaseModel):
    """What the server offers."""

    models: list[ModelView]
    samplers: tuple[str, ...] = get_args(Sampler)
    limits: LimitsView
    files: list[FileKindView]


class Health(BaseModel):
    """Whether the server works."""

    status: Literal["ok", "stopping"]
    version: str
    waiting: int = Field(description="jobs that nobody works on yet")
    token_needed: bool = Field(description="whether all other requests have to carry a token")


def decoded(text: str, name: str) -> bytes:
    """The bytes of a base64 text, or of a data URI that holds one.

    Raises:
        ValueError: when it is none.
    """
    head, comma, _ = text[:_LONGEST_DATA_URI_HEAD].partition(",")
    if comma and head.lower().startswith("data:"):
        if not head.lower().endswith(";base64"):
            raise InvalidInputError(f"the {name} is a data URI of another encoding, expected base64")
        text = text[len(head) + 1 :]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError(f"the {name} is not in base64") from error


def first_sentence(problems: list[Any]) -> str:
    """The first of pydantic's complaints, as one sentence."""
    problem = problems[0]
    field = ".".join(str(part) for part in problem["loc"] if part not in ("body", "path", "query"))
    kind, value, bounds = problem["type"], problem.get("input"), problem.get("ctx", {})
    if kind == "json_invalid":
        return "the request is not valid JSON"
    if kind == "missing":
        return f"{field} is missing"
    if kind == "extra_forbidden":
        return f"{field[:_LONGEST_VALUE]!r} is unknown here"
    text = repr(value)
    text = text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
    subject = f"{field or 'the request'} is {text}"
    return f"{subject}, expected {_expected(kind, bounds)}"


def _expected(kind: str, bounds: Mapping[str, Any]) -> str:
    match kind:
        case "greater_than_equal":
            return f"at least {bounds['ge']}"
        case "less_than_equal":
            return f"at most {bounds['le']}"
        case "less_than":
            return f"less than {bounds['lt']}"
        case "string_too_long":
            return f"at most {bounds['max_length']} characters"
        case _:
            return next((words for name, words in _TYPES.items() if kind.startswith(name)), "another value")


_TYPES: dict[str, str] = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "string": "a text",
    "bool": "true or false",
    "list": "a list",
    "dict": "an object with named values",
    "model": "an object with named values",
}


def _files(job: str, number: int) -> list[ResultFile]:
    return [
        ResultFile(
            suffix=suffix, description=kind.description, url=f"/api/jobs/{job}/results/{number}{suffix}"
        )
        for suffix, kind in FILE_KINDS.items()
    ]
