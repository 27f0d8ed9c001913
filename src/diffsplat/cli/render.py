"""``diffsplat render``: images of a splat file."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from diffsplat.cli.option_help import OUTPUT_ALIASES, Flag, option
from diffsplat.cli.output_paths import check_output
from diffsplat.errors import InvalidInputError, require
from diffsplat.io.file_access import make_folder, require_suffix
from diffsplat.io.splat_suffixes import require_splat_file

if TYPE_CHECKING:
    from diffsplat.core import Splats

MAX_SIZE = 4096
BAR_DELAY = 0.5
"""Seconds before a progress bar shows; what is done or refused sooner needs none."""


@dataclass(frozen=True)
class RenderArguments:
    """Options of ``diffsplat render``."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """Splats: .ply, .compressed.ply, .splat, .spz, .ksplat, .sog, .glb or .gltf, or the folder of an unpacked
    .sog."""
    output: Annotated[Path | None, option("FILE", aliases=OUTPUT_ALIASES)] = None
    """A turntable, or an image of the front, as the suffix says; --turntable and --view have the angles."""
    turntable: Annotated[Path | None, tyro.conf.arg(metavar="VIDEO", help_behavior_hint="")] = None
    """Once around the object: .mp4, .gif or .webp."""
    view: Annotated[
        tuple[str, Path] | None, tyro.conf.arg(metavar="ELEVATION,AZIMUTH IMAGE", help_behavior_hint="")
    ] = None
    """One image (.png, .jpg, .webp) from these angles: degrees above the horizon, degrees around with 0 for
    the front and 90 for the object's left, so "20,45 out.png"."""
    size: Annotated[int, tyro.conf.arg(metavar="PIXELS")] = 512
    """Width and height."""
    frames: Annotated[int, tyro.conf.arg(metavar="N")] = 120
    """Frames of the turntable."""
    fps: Annotated[float, tyro.conf.arg(metavar="N")] = 30.0
    """Frames a second of the turntable."""
    elevation: Annotated[float, tyro.conf.arg(metavar="DEGREES")] = 10.0
    """Angle above the horizon of the turntable."""
    radius: Annotated[float | None, option("UNITS", "(default: the splats are framed)")] = None
    """Distance of the camera from the origin, 1.4 for generated objects."""
    strict: Flag = False
    """Refuse FILE if Gaussians of it cannot be used, or if more bytes follow, instead of leaving them out."""
    force: Flag = False
    """Replace existing files."""


def command(arguments: Annotated[RenderArguments, tyro.conf.arg(name="")]) -> None:
    """Render a splat file as a turntable video, as an image, or both."""
    arguments = _with_output(arguments)
    _check(arguments)
    from diffsplat.geometry.splat_framing import framed
    from diffsplat.io.splat_formats import read_splats

    splats = read_splats(arguments.file, strict=arguments.strict)
    if arguments.radius is None:
        splats = framed(splats)
    if arguments.view is not None:
        angles, target = arguments.view
        make_folder(target.parent)
        _write_view(arguments, parse_view(angles), target, splats)
        print(target)
    if arguments.turntable is not None:
        make_folder(arguments.turntable.parent)
        _write_turntable(arguments, arguments.turntable, splats)
        print(arguments.turntable)


def parse_view(text: str) -> tuple[float, float]:
    """``"20,45"`` as elevation and azimuth in degrees.

    Raises:
        ValueError: for anything but two finite numbers with a comma between, the first within -90 to 90.
    """
    try:
        elevation, azimuth = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidInputError(f"the view is {text!r}, expected elevation,azimuth like 20,45") from error
    require(-90 <= elevation <= 90, "the elevation", f"{elevation:g}", "-90 to 90 degrees")
    require(math.isfinite(azimuth), "the azimuth", f"{azimuth:g}", "a finite number of degrees")
    return elevation, azimuth


def _with_output(arguments: RenderArguments) -> RenderArguments:
    """``--output`` as the turntable or view that its suffix means."""
    from diffsplat.io.video_files import VIDEO_WRITERS

    output = arguments.output
    if output is None:
        return arguments
    if output.suffix.lower() in VIDEO_WRITERS:
        if arguments.turntable is not None:
            raise InvalidInputError("--output and --turntable name a video each, expected one of them")
        return replace(arguments, turntable=output)
    if arguments.view is not None:
        raise InvalidInputError("--output and --view name an image each, expected one of them")
    return replace(arguments, view=(f"{arguments.elevation:g},0", output))


def _check(arguments: RenderArguments) -> None:
    from diffsplat.io.video_files import VIDEO_WRITERS

    require_splat_file(arguments.file)
    targets = [] if arguments.turntable is None else [arguments.turntable]
    if arguments.view is not None:
        parse_view(arguments.view[0])
        targets.append(arguments.view[1])
    if not targets:
        raise InvalidInputError(
            "nothing to render was named, expected -o FILE, --turntable VIDEO or --view ELEVATION,AZIMUTH IMAGE"
        )
    if arguments.turntable is not None:
        require_suffix(arguments.turntable, VIDEO_WRITERS, "a video: ")
    require(1 <= arguments.size <= MAX_SIZE, "the size", arguments.size, f"1 to {MAX_SIZE} pixels")
    if arguments.frames < 1:
        raise InvalidInputError(f"--frames is {arguments.frames}, expected at least 1")
    if not -90 <= arguments.elevation <= 90:
        raise InvalidInputError(f"the elevation is {arguments.elevation:g}, expected -90 to 90 degrees")
    if arguments.radius is not None and not 0 < arguments.radius < math.inf:
        raise InvalidInputError(f"the radius is {arguments.radius:g}, expected a positive distance")
    for target in targets:
        check_output(target, force=arguments.force)


def _write_view(
    arguments: RenderArguments, angles: tuple[float, float], target: Path, splats: Splats
) -> None:
    from diffsplat.core import DEFAULT_RADIUS
    from diffsplat.geometry import orbit_cameras
    from diffsplat.io.image_files import write_image
    from diffsplat.render import render

    elevation, azimuth = angles
    size = arguments.size
    radius = arguments.radius or DEFAULT_RADIUS
    cameras = orbit_cameras([azimuth], elevation, radius=radius, width=size, height=size)
    write_image(render(splats, cameras, normals=False).rgb[0], target, force=arguments.force)


def _write_turntable(arguments: RenderArguments, target: Path, splats: Splats) -> None:
    from tqdm import tqdm

    from diffsplat.core import DEFAULT_RADIUS
    from diffsplat.io.video_files import write_video
    from diffsplat.pipelines.turntable_video import turntable_frames

    frames = turntable_frames(
        splats,
        frames=arguments.frames,
        elevation_deg=arguments.elevation,
        size=arguments.size,
        radius=arguments.radius or DEFAULT_RADIUS,
    )
    with tqdm(
        frames, total=arguments.frames, unit="frame", file=sys.stderr, leave=False, delay=BAR_DELAY
    ) as bar:
        write_video(bar, target, fps=arguments.fps, force=arguments.force)
