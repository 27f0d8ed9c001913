"""``diffsplat convert``: a splat file into another format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from diffsplat.cli.option_help import Flag, option
from diffsplat.cli.output_paths import UP_AXES, Up, check_output
from diffsplat.errors import InvalidInputError, require
from diffsplat.io.file_access import make_folder
from diffsplat.io.splat_suffixes import require_splat_file

if TYPE_CHECKING:
    from diffsplat.core import Splats


@dataclass(frozen=True)
class ConvertArguments:
    """Options of ``diffsplat convert``."""

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IN")]
    """Splats: .ply, .compressed.ply, .splat, .spz, .ksplat, .sog, .glb or .gltf, or the folder of an unpacked
    .sog."""
    target: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """File to write, in any of these formats but .ksplat."""
    up: Annotated[Up | None, option("y|-y|z", "(default: what is usual in the format)")] = None
    """Axis that points up in OUT."""
    from_up: Annotated[
        Up | None, option("y|-y|z", "(default: what IN says, or what is usual in the format)")
    ] = None
    """Axis that points up in IN."""
    opacity_min: Annotated[float, tyro.conf.arg(metavar="X")] = 0.0
    """Leave out Gaussians whose opacity is below, 0 to 1."""
    crop: Annotated[tuple[float, ...] | None, option("X")] = None
    """Keep the Gaussians whose centres lie in this box, XMIN YMIN ZMIN XMAX YMAX ZMAX, or within this radius
    of the origin; in this program's axes, +Y up."""
    strict: Flag = False
    """Refuse IN if some of its Gaussians cannot be used, or if more bytes follow them, instead of leaving them out."""
    force: Flag = False
    """Replace an existing file."""


def command(arguments: Annotated[ConvertArguments, tyro.conf.arg(name="")]) -> None:
    """Convert splats from one format into another, so that the object is upright in its viewers.

    The path of the written file is printed.
    """
    _check(arguments)
    from diffsplat.io.splat_formats import read_splats, writable_format, write_splats

    writable_format(arguments.target)
    from_up = arguments.from_up and UP_AXES[arguments.from_up]
    splats = read_splats(arguments.source, up=from_up, strict=arguments.strict)
    kept = _selected(splats, arguments)
    make_folder(arguments.target.parent)
    write_splats(kept, arguments.target, force=arguments.force, up=arguments.up and UP_AXES[arguments.up])
    print(arguments.target)


def _check(arguments: ConvertArguments) -> None:
    require(0 <= arguments.opacity_min <= 1, "the smallest opacity", f"{arguments.opacity_min:g}", "0 to 1")
    if arguments.crop is not None:
        _check_crop(arguments.crop)
    require_splat_file(arguments.source)
    check_output(arguments.target, force=arguments.force)


def _check_crop(crop: tuple[float, ...]) -> None:
    text = " ".join(f"{value:g}" for value in crop)
    require(len(crop) in (1, 6), "the crop", repr(text), "a radius or XMIN YMIN ZMIN XMAX YMAX ZMAX")
    require(len(crop) != 1 or crop[0] > 0, "the radius of the crop", text, "a positive distance")
    if not all(low < high for low, high in zip(crop[:3], crop[3:], strict=False)):
        raise InvalidInputError(f"the crop is {text!r}, expected each least coordinate below the greatest")


def _selected(splats: Splats, arguments: ConvertArguments) -> Splats:
    """The Gaussians that are opaque enough and inside."""
    keep = splats.opacities >= arguments.opacity_min
    if arguments.crop is not None and len(arguments.crop) == 1:
        keep &= splats.means.norm(dim=-1) <= arguments.crop[0]
    elif arguments.crop is not None:
        low, high = (splats.means.new_tensor(corner) for corner in (arguments.crop[:3], arguments.crop[3:]))
        keep &= ((splats.means >= low) & (splats.means <= high)).all(dim=-1)
    if not keep.any():
        raise InvalidInputError(
            f"none of the {splats.count} Gaussians of {str(arguments.source)!r} is left, expected a larger "
            "--crop or a lower --opacity-min"
        )
    return splats.take(keep)
