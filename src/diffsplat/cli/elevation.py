"""``diffsplat elevation``: how far above the horizon an image was taken from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from diffsplat.errors import InvalidInputError
from diffsplat.images.image_framing_options import ImageFraming
from diffsplat.io.file_access import require_readable
from diffsplat.pipelines.model_opening import ModelChoice, OpeningOptions


@dataclass(frozen=True)
class ElevationArguments:
    """Options of ``diffsplat elevation``."""

    images: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILE ...", help_behavior_hint="")
    ]
    """Images of objects; their background is removed unless they are transparent."""
    model: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")] = "mini"
    """Model whose elevation network estimates; the released ones share theirs."""
    framing: Annotated[ImageFraming, tyro.conf.arg(name="")] = field(default_factory=ImageFraming)
    opening: Annotated[OpeningOptions, tyro.conf.arg(name="")] = field(default_factory=OpeningOptions)


def command(arguments: Annotated[ElevationArguments, tyro.conf.arg(name="")]) -> None:
    """Estimate the elevation of images, in degrees above the horizon.

    One line an image: degrees, then its path.
    """
    for path in arguments.images:
        require_readable(path)
    if not arguments.images:
        raise InvalidInputError("no image was given, expected at least one")
    estimator = ModelChoice(arguments.model, options=arguments.opening).open_elevation_estimator()
    from diffsplat.pipelines.image_and_control_conditions import condition_image

    for path in arguments.images:
        image = condition_image(path, 256, cut_out=True, framing=arguments.framing).image
        print(f"{float(estimator.degrees_above_horizon(image[None])[0]):.1f} {path}", flush=True)
