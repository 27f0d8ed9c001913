"""``diffsplat generate``: descriptions to splats."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from diffsplat.cli.model_options import Flag, ModelArguments, option
from diffsplat.cli.output_paths import (
    UP_AXES,
    PlannedObject,
    Preview,
    Up,
    check_folder,
    plan_objects,
    probe_folder,
)
from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import make_folder, require_readable, require_writable
from diffsplat.io.splat_suffixes import WRITABLE_SUFFIXES, splat_suffix
from diffsplat.pipelines.generation import GenerationRequest
from diffsplat.pretrained.catalogue import ControlKind, Sampler
from diffsplat.pretrained.model_folders import SamplingDefaults

if TYPE_CHECKING:
    from diffsplat.pipelines import DiffSplatPipeline, SplatOutput
    from diffsplat.pipelines.splat_pipeline import Pictures

PREVIEW_SIZE = 256
PREVIEW_FRAMES = 60
PREVIEW_FPS = 20.0

_OF_MODEL = "(default: the model's)"


@dataclass(frozen=True)
class PictureArguments:
    """Pictures for the released models."""

    image: Annotated[Path | None, option("FILE")] = None
    """Picture of the object. Its background is removed unless it has transparency."""
    control: ControlKind | None = None
    """Follow a control map of the first view (--model sd15)."""
    control_image: Annotated[Path | None, option("FILE")] = None
    """The control map as a picture."""
    control_photo: Annotated[Path | None, option("FILE")] = None
    """A plain picture whose edges are the control map (--control canny)."""
    control_from: Annotated[Path | None, option("FILE")] = None
    """Splats (.ply, .spz, ...) or a mesh (.glb, .obj, ...) whose first view gives the control map."""
    control_scale: Annotated[float, tyro.conf.arg(metavar="SCALE")] = 1.0
    """How strongly to follow the control map."""
    guess_mode: Annotated[Flag, tyro.conf.arg(help_behavior_hint="")] = False
    """Let the control map act without the unconditional half of the guidance."""
    least_guidance: Annotated[float, tyro.conf.arg(metavar="SCALE")] = 1.0
    """With --image, guidance of the side that is seen; it rises to --guidance on the other side."""
    unshifted: Annotated[Flag, tyro.conf.arg(help_behavior_hint="")] = False
    """With --image and sd35m, give the picture's latents as the original's inference did."""

    def check(self) -> None:
        """Refuse options that do not fit each other, and files that are not there."""
        sources = [path for path in (self.control_image, self.control_photo, self.control_from) if path]
        if self.control is None and sources:
            raise InvalidInputError(f"{str(sources[0])!r} was given without --control, expected its kind")
        if self.control is not None and len(sources) != 1:
            raise InvalidInputError(
                f"--control {self.control} was given with {len(sources)} pictures, expected one of --control-image, "
                "--control-photo and --control-from"
            )
        if self.control_photo is not None and self.control != "canny":
            raise InvalidInputError(
                f"--control-photo gives edges, expected --control canny, not {self.control}"
            )
        if self.image is not None and self.control is not None:
            raise InvalidInputError("--image and --control were both given, expected one of them")
        for path in (self.image, *sources):
            if path is not None:
                require_readable(path)


@dataclass(frozen=True)
class GenerateArguments:
    """Options of ``diffsplat generate``."""

    prompt: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="PROMPT ...", help_behavior_hint="")
    ] = ()
    """What to generate, for instance "a red armchair"; put each of several in quotes."""
    prompts: Annotated[Path | None, option("FILE")] = None
    """Text file with one more prompt in every line."""
    output: Annotated[Path | None, option("PATH", alias="-o")] = None
    """Where to write. For one object a splat file, .ply, .compressed.ply, .splat, .spz, .sog, .glb or .gltf
    (default: a .ply named after the prompt); for several a folder (default: this one), or the name of a splat
    file that gets numbers."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Seed of a prompt's first object; the same seed gives the same object."""
    steps: Annotated[int | None, option("N", _OF_MODEL)] = None
    """Denoising steps."""
    sampler: Annotated[Sampler | None, tyro.conf.arg(help_behavior_hint=_OF_MODEL)] = None
    """How to denoise."""
    guidance: Annotated[float | None, option("SCALE", _OF_MODEL)] = None
    """How closely to follow the prompt; 1 or less for no guidance. The last steps, of a model's refiner, have
    a scale of its own."""
    negative_prompt: Annotated[str, option("TEXT")] = ""
    """What to steer away from."""
    count: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Objects of each prompt, with the seeds that follow."""
    elevation: Annotated[
        float | None, option("DEGREES", "(default: the model's; of an image: estimated)")
    ] = None
    """Angle above the horizon of the generated views."""
    up: Annotated[Up | None, option("y|-y|z", "(default: what is usual in the format)")] = None
    """Axis that points up in the files; many viewers of .ply want -y."""
    preview: Preview = "none"
    """Also write pictures beside the splats: four views (png) or a turntable (gif, mp4)."""
    force: Annotated[Flag, tyro.conf.arg(help_behavior_hint="")] = False
    """Replace existing files."""
    source: Annotated[ModelArguments, tyro.conf.arg(name="")] = field(default_factory=ModelArguments)
    pictures: Annotated[PictureArguments, tyro.conf.arg(name="")] = field(default_factory=PictureArguments)


def command(arguments: Annotated[GenerateArguments, tyro.conf.arg(name="")]) -> None:
    """Generate 3D Gaussian splats from descriptions, a picture or a control map.

    The paths of the written files are printed, one a line.
    """
    arguments.pictures.check()
    arguments.source.check()
    defaults = arguments.source.defaults(image=arguments.pictures.image is not None)
    request = _request(arguments, defaults)
    planned = plan_objects(request, arguments.output, arguments.preview, _unnamed(arguments))
    _check_files(planned, force=arguments.force)
    for path in _generate_all(request, planned, arguments):
        print(path, flush=True)


def _unnamed(arguments: GenerateArguments) -> str:
    """What a file is called when there is no prompt: like the picture."""
    image = arguments.pictures.image
    return "object" if image is None else image.stem


def _request(arguments: GenerateArguments, defaults: SamplingDefaults) -> GenerationRequest:
    prompts, pictures = arguments.prompt, arguments.pictures
    if arguments.prompts is not None:
        prompts = (*prompts, *_read_prompts(arguments.prompts))
    elif not prompts and pictures.image is not None:
        prompts = ("",)
    elif not prompts:
        raise InvalidInputError(
            "no prompt was given, expected a description such as 'a red armchair' or --prompts"
        )
    return GenerationRequest(
        prompts=prompts,
        negative_prompt=arguments.negative_prompt,
        seed=arguments.seed,
        steps=defaults.steps if arguments.steps is None else arguments.steps,
        guidance=defaults.guidance if arguments.guidance is None else arguments.guidance,
        count=arguments.count,
        elevation_deg=defaults.elevation_deg if arguments.elevation is None else arguments.elevation,
        from_image=pictures.image is not None,
        least_guidance=pictures.least_guidance,
        sampler=arguments.sampler,
        control_scale=pictures.control_scale,
        guess_mode=pictures.guess_mode,
        shifted=not pictures.unshifted,
    )


def _read_prompts(path: Path) -> tuple[str, ...]:
    """The lines of a text file that are not blank."""
    try:
        text = require_readable(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{str(path)!r} is not a text file in UTF-8") from error
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise InvalidInputError(f"{str(path)!r} holds no prompts, expected one in every line")
    return lines


def _check_files(planned: list[PlannedObject], *, force: bool) -> None:
    """Refuse files that could not be written, before minutes are spent on them."""
    for item in planned:
        if item.splats.is_dir():
            raise InvalidInputError(f"cannot write {str(item.splats)!r}: it is a directory, expected a file")
        if splat_suffix(item.splats) not in WRITABLE_SUFFIXES:
            raise InvalidInputError(
                f"{str(item.splats)!r} has the suffix {item.splats.suffix!r}, expected "
                f"{', '.join(WRITABLE_SUFFIXES)}"
            )
        for path in (item.splats, item.preview):
            if path is None:
                continue
            if len(planned) > 1:
                check_folder(path.parent)
            if len(planned) == 1 or path.parent.is_dir():
                require_writable(path, force=force)
                probe_folder(path.parent)


def _generate_all(
    request: GenerationRequest, planned: list[PlannedObject], arguments: GenerateArguments
) -> Iterator[Path]:
    """Generate and write one object after the other; yields the paths of finished files."""
    from tqdm import tqdm

    shown = arguments.pictures
    texts = [*request.prompts, *([request.negative_prompt] if request.guidance > 1 else [])]
    pipe = arguments.source.load(texts, image=shown.image is not None, control=shown.control)
    pictures = _pictures(pipe, shown, request.elevation_deg)
    if shown.image is not None and arguments.elevation is None:
        request = replace(request, elevation_deg=_estimated(pipe, pictures))

    def advance(*_: int) -> None:
        bar.update()

    with tqdm(total=len(planned) * request.steps, unit="step", file=sys.stderr, leave=False) as bar:
        for item in planned:
            bar.set_description(item.prompt[:40])
            single = replace(request, prompts=(item.prompt,), seed=item.seed, count=1)
            output = pipe.generate(single, pictures, advance)
            yield from _write(output, item, request.elevation_deg, arguments)


def _pictures(pipe: DiffSplatPipeline, shown: PictureArguments, elevation_deg: float) -> Pictures:
    """The pictures at the model's size."""
    if shown.control is None:
        return pipe.prepare(image=shown.image)
    from diffsplat.pipelines.control_maps import canny_map, control_maps_from
    from diffsplat.pipelines.image_conditioning import read_picture

    size = pipe.autoencoder.image_size
    if shown.control_from is not None:
        return pipe.prepare(
            control=control_maps_from(
                shown.control_from, shown.control, elevation_deg=elevation_deg, size=size
            )
        )
    if shown.control_photo is not None:
        return pipe.prepare(control=canny_map(read_picture(shown.control_photo, size, cut_out=False)))
    return pipe.prepare(control=shown.control_image)


def _estimated(pipe: DiffSplatPipeline, pictures: Pictures) -> float:
    elevation_deg = pipe.choose_elevation(pictures)
    print(f"the picture was taken from {elevation_deg:.1f} degrees above the horizon", file=sys.stderr)
    return elevation_deg


def _write(
    output: SplatOutput, item: PlannedObject, elevation_deg: float, arguments: GenerateArguments
) -> Iterator[Path]:
    """Write an object's files; yields their paths."""
    from diffsplat.core import DEFAULT_RADIUS
    from diffsplat.io.image_files import write_image
    from diffsplat.io.splat_formats import write_splats
    from diffsplat.io.video_files import write_video
    from diffsplat.pipelines.previews import contact_sheet, turntable_frames

    force = arguments.force
    splats = output.splats[0].visible().to("cpu")
    make_folder(item.splats.parent)
    write_splats(splats, item.splats, force=force, up=arguments.up and UP_AXES[arguments.up])
    yield item.splats
    if item.preview is None:
        return
    if item.preview.suffix == ".png":
        sheet = contact_sheet(splats, output.cameras[0].to("cpu"), PREVIEW_SIZE)
        write_image(sheet, item.preview, force=force)
    else:
        frames = turntable_frames(
            splats,
            frames=PREVIEW_FRAMES,
            elevation_deg=elevation_deg,
            size=PREVIEW_SIZE,
            radius=DEFAULT_RADIUS,
        )
        write_video(frames, item.preview, fps=PREVIEW_FPS, force=force)
    yield item.preview
