"""Names of the files that a generation writes, decided and checked before the model runs. Needs no torch."""

import re
import tempfile
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import explained_os_errors
from diffsplat.io.splat_suffixes import splat_stem, splat_suffix
from diffsplat.pipelines.generation import GenerationRequest

DEFAULT_SUFFIX = ".ply"
_LONGEST_NAME = 60

Preview = Literal["none", "png", "gif", "mp4"]
Up = Literal["y", "-y", "z"]
UP_AXES: dict[Up, Literal["y", "z", "minus-y"]] = {"y": "y", "-y": "minus-y", "z": "z"}
"""Axes that may point up in a file, by what they are called on the command line."""


@dataclass(frozen=True)
class PlannedObject:
    """One object to generate.

    Args:
        prompt: its description.
        seed: its seed.
        splats: file for its splats.
        preview: file for its preview, or None.
    """

    prompt: str
    seed: int
    splats: Path
    preview: Path | None


def plan_objects(
    request: GenerationRequest, output: Path | None, preview: Preview, unnamed: str = "object"
) -> list[PlannedObject]:
    """Decide on the files of every object.

    One object goes into the file ``output``, or into one named after its prompt. Several go into the folder
    ``output``, named after their prompts, or, when ``output`` has the suffix of a splat file, into numbered
    files. An empty prompt is called ``unnamed``.
    """
    objects = request.objects
    if output is not None and splat_suffix(output) is not None:
        stem = splat_stem(output)
        suffix = output.name[len(stem) :]
        width = len(str(len(objects)))
        names = [stem] if len(objects) == 1 else _numbered(stem, len(objects), width)
        paths = [output.with_name(name + suffix) for name in names]
    elif output is not None and len(objects) == 1:
        paths = [output]
    else:
        folder = output or Path()
        paths = [folder / (name + DEFAULT_SUFFIX) for name in _prompt_names(request, unnamed)]
    return [
        PlannedObject(
            prompt, seed, path, None if preview == "none" else path.with_name(f"{splat_stem(path)}.{preview}")
        )
        for (prompt, seed), path in zip(objects, paths, strict=True)
    ]


def slug(prompt: str) -> str:
    """A file name made of a prompt: lower-case ASCII letters and digits joined by hyphens."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    return "-".join(re.findall("[a-z0-9]+", plain))[:_LONGEST_NAME].strip("-") or "object"


def check_folder(folder: Path) -> None:
    """Refuse a folder that does not exist and cannot be made.

    Raises:
        ValueError: when its place is taken by a file, or its parent is missing or not writable.
    """
    if folder.is_dir():
        return
    if folder.exists():
        raise InvalidInputError(f"cannot write into {str(folder)!r}: it is a file, expected a folder")
    parent = folder.resolve().parent
    if not parent.is_dir():
        raise InvalidInputError(f"cannot make the folder {str(folder)!r}: {str(parent)!r} does not exist")
    probe_folder(parent)


def probe_folder(folder: Path) -> None:
    """Refuse a folder in which no file can be made, whatever its permissions say. Leaves nothing behind.

    Raises:
        ValueError: with the system's reason, such as a read-only file system.
    """
    with explained_os_errors(f"cannot write into {str(folder)!r}"), tempfile.TemporaryFile(dir=folder):
        pass


def _numbered(stem: str, count: int, width: int) -> list[str]:
    return [f"{stem}-{number:0{width}}" for number in range(1, count + 1)]


def _prompt_names(request: GenerationRequest, unnamed: str) -> list[str]:
    """A distinct name for every object: the prompt's, its number where names repeat, the seed where asked."""
    slugs = [slug(prompt or unnamed) for prompt in request.prompts]
    repeats = Counter(slugs)
    seen: Counter[str] = Counter()
    names: list[str] = []
    for name in slugs:
        seen[name] += 1
        label = name if repeats[name] == 1 else f"{name}-{seen[name]}"
        seeds = range(request.seed, request.seed + request.count)
        names += [label] if request.count == 1 else [f"{label}-seed{seed}" for seed in seeds]
    return names
