"""``diffsplat generate``: descriptions to splats."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from diffsplat.cli.outputs import (
    SPLAT_SUFFIX,
    PlannedObject,
    Preview,
    check_folder,
    plan_objects,
    probe_folder,
)
from diffsplat.io.files import require_readable, require_writable
from diffsplat.pipelines.folders import COMPONENT_FILES, SamplingDefaults, find_model, read_index
from diffsplat.pipelines.request import GenerationRequest

if TYPE_CHECKING:
    from diffsplat.pipelines import SplatOutput

PREVIEW_SIZE = 256
PREVIEW_FRAMES = 60
PREVIEW_FPS = 20.0

_OF_MODEL = "(default: the model's)"


def _option(metavar: str, hint: str = "", alias: str | None = None) -> Any:
    """How an option whose default is nothing looks in the help."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint, aliases=[alias] if alias else None)


@dataclass(frozen=True)
class GenerateArguments:
    """Options of ``diffsplat generate``."""

    prompt: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="PROMPT ...", help_behavior_hint="")
    ] = ()
    """What to generate, for instance "a red armchair"; put each of several in quotes."""
    prompts: Annotated[Path | None, _option("FILE")] = None
    """Text file with one more prompt in every line."""
    output: Annotated[Path | None, _option("PATH", alias="-o")] = None
    """Where to write. For one object a .ply file (default: named after the prompt); for several a folder
    (default: this one), or a name ending in .ply that gets numbers."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Seed of a prompt's first object; the same seed gives the same object."""
    steps: Annotated[int | None, _option("N", _OF_MODEL)] = None
    """Denoising steps."""
    guidance: Annotated[float | None, _option("SCALE", _OF_MODEL)] = None
    """How closely to follow the prompt; 1 or less for no guidance."""
    negative_prompt: Annotated[str, _option("TEXT")] = ""
    """What to steer away from."""
    count: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Objects of each prompt, with the seeds that follow."""
    elevation: Annotated[float | None, _option("DEGREES", _OF_MODEL)] = None
    """Angle above the horizon of the generated views."""
    model: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")] = "mini"
    """An embedded model, or a model folder."""
    device: Annotated[str, tyro.conf.arg(metavar="DEVICE")] = "auto"
    """auto, cpu, cuda or cuda:N."""
    preview: Preview = "none"
    """Also write pictures beside the splats: four views (png) or a turntable (gif, mp4)."""
    force: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")] = False
    """Replace existing files."""


def command(arguments: Annotated[GenerateArguments, tyro.conf.arg(name="")]) -> None:
    """Generate 3D Gaussian splats from descriptions.

    The paths of the written files are printed, one a line.
    """
    folder = find_model(arguments.model)
    defaults = SamplingDefaults.from_index(read_index(folder, set(COMPONENT_FILES)))
    request = _request(arguments, defaults)
    planned = plan_objects(request, arguments.output, arguments.preview)
    _check_files(planned, force=arguments.force)
    for path in _generate_all(request, planned, folder, arguments):
        print(path, flush=True)


def _request(arguments: GenerateArguments, defaults: SamplingDefaults) -> GenerationRequest:
    prompts = arguments.prompt
    if arguments.prompts is not None:
        prompts = (*prompts, *_read_prompts(arguments.prompts))
    elif not prompts:
        raise ValueError("no prompt was given, expected a description such as 'a red armchair' or --prompts")
    return GenerationRequest(
        prompts=prompts,
        negative_prompt=arguments.negative_prompt,
        seed=arguments.seed,
        steps=defaults.steps if arguments.steps is None else arguments.steps,
        guidance=defaults.guidance if arguments.guidance is None else arguments.guidance,
        count=arguments.count,
        elevation_deg=defaults.elevation_deg if arguments.elevation is None else arguments.elevation,
    )


def _read_prompts(path: Path) -> tuple[str, ...]:
    """The lines of a text file that are not blank."""
    try:
        text = require_readable(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is not a text file in UTF-8") from error
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise ValueError(f"{str(path)!r} holds no prompts, expected one in every line")
    return lines


def _check_files(planned: list[PlannedObject], *, force: bool) -> None:
    """Refuse files that could not be written, before minutes are spent on them."""
    for item in planned:
        if item.splats.is_dir():
            raise ValueError(f"cannot write {str(item.splats)!r}: it is a directory, expected a file")
        if item.splats.suffix.lower() != SPLAT_SUFFIX:
            raise ValueError(
                f"{str(item.splats)!r} has the suffix {item.splats.suffix!r}, expected {SPLAT_SUFFIX}"
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
    request: GenerationRequest, planned: list[PlannedObject], folder: Path, arguments: GenerateArguments
) -> Iterator[Path]:
    """Generate and write one object after the other; yields the paths of finished files."""
    from tqdm import tqdm

    from diffsplat.cli.devices import choose_device
    from diffsplat.pipelines import DiffSplatPipeline

    device = choose_device(arguments.device)
    pipe = DiffSplatPipeline.from_pretrained(folder).to(device)

    def advance(*_: int) -> None:
        bar.update()

    with tqdm(total=len(planned) * request.steps, unit="step", file=sys.stderr, leave=False) as bar:
        for item in planned:
            bar.set_description(item.prompt[:40])
            output = pipe(
                item.prompt,
                seed=item.seed,
                steps=request.steps,
                guidance=request.guidance,
                negative_prompt=request.negative_prompt,
                elevation=request.elevation_deg,
                callback=advance,
            )
            yield from _write(output, item, request.elevation_deg, force=arguments.force)


def _write(output: SplatOutput, item: PlannedObject, elevation_deg: float, *, force: bool) -> Iterator[Path]:
    """Write an object's files; yields their paths."""
    from diffsplat.cli.turntable import contact_sheet, turntable_frames
    from diffsplat.core import DEFAULT_RADIUS
    from diffsplat.io.formats import write_splats
    from diffsplat.io.images import write_image
    from diffsplat.io.video import write_video

    splats = output.splats[0].visible().to("cpu")
    item.splats.parent.mkdir(exist_ok=True)
    write_splats(splats, item.splats, force=force)
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
