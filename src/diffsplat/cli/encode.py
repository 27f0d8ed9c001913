"""``diffsplat encode``: prompts to a file that generation reads instead of a text encoder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from diffsplat.cli.option_help import OUTPUT_ALIASES, Flag, option
from diffsplat.io.file_access import require_suffix, require_writable
from diffsplat.pipelines.generation_options import Generation
from diffsplat.pipelines.model_opening import ModelChoice, OpeningOptions, WeightsAndDevice


@dataclass(frozen=True)
class EncodeArguments:
    """Options of ``diffsplat encode``."""

    prompt: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="PROMPT ...", help_behavior_hint="")
    ]
    """Prompts; the empty one is always encoded too, for guidance and for images without a prompt."""
    output: Annotated[Path, option("FILE", aliases=OUTPUT_ALIASES)]
    """File to write (.safetensors)."""
    negative_prompt: Annotated[str, option("TEXT")] = ""
    """What generations will steer away from."""
    clip_skip: Annotated[int | None, option("N")] = None
    """Layers of a CLIP text encoder to leave out at its end, for sd15 and sd35m."""
    model: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")] = "mini"
    """Model whose text encoder is used."""
    opening: Annotated[WeightsAndDevice, tyro.conf.arg(name="")] = field(default_factory=WeightsAndDevice)
    force: Flag = False
    """Replace an existing file."""


def command(arguments: Annotated[EncodeArguments, tyro.conf.arg(name="")]) -> None:
    """Encode prompts once, for ``diffsplat generate --embeddings FILE``.

    The path of the written file is printed.
    """
    require_suffix(arguments.output, (".safetensors",))
    require_writable(arguments.output, force=arguments.force)
    model = ModelChoice(arguments.model, options=OpeningOptions(**asdict(arguments.opening)))
    model.check()
    generation = Generation(
        prompts=arguments.prompt, negative_prompt=arguments.negative_prompt, clip_skip=arguments.clip_skip
    )
    prompts = generation.resolved(model.defaults()).prompts
    stored = model.encode([*prompts, generation.negative_prompt, ""], generation.clip_skip)
    stored.save(arguments.output, force=arguments.force)
    print(arguments.output)
