"""Names of the files that a generation writes, decided and checked before the model runs. Needs no torch."""

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import explained_os_errors, require_writable
from diffsplat.io.splat_suffixes import MESH_SUFFIX, WRITABLE_SUFFIXES, splat_stem, splat_suffix
from diffsplat.pipelines.generation_options import Generation
from diffsplat.pipelines.prompt_file_names import slug

DEFAULT_SUFFIX = ".ply"

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
        image: the image that it is generated from, or None.
        mesh: file for its mesh, or None.
    """

    prompt: str
    seed: int
    splats: Path
    preview: Path | None
    image: Path | None = None
    mesh: Path | None = None

    @property
    def name(self) -> str:
        """What it is called while it is generated."""
        return self.prompt or (self.image.name if self.image else "object")

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file of the object."""
        return tuple(path for path in (self.splats, self.mesh, self.preview) if path is not None)


def plan_objects(
    generation: Generation,
    output: Path | None,
    preview: Preview,
    images: tuple[Path, ...] = (),
    *,
    mesh: bool = False,
) -> list[PlannedObject]:
    """Decide on the files of every object: the objects of the first image, if any, then those of the next.

    One object goes into the file ``output``, or into one named after its prompt. Several go into the folder
    ``output``, named after their prompts, or, when ``output`` has the suffix of a splat file, into numbered
    files. Objects of several images, or without a prompt, are named after their image.
    """
    sources = images or (None,)
    objects = [(image, *entry) for image in sources for entry in generation.objects]
    if output is not None and splat_suffix(output) is not None:
        stem = splat_stem(output)
        suffix = output.name[len(stem) :]
        width = len(str(len(objects)))
        numbered = [f"{stem}-{number:0{width}}" for number in range(1, len(objects) + 1)]
        names = numbered if len(objects) > 1 else [stem]
        paths = [output.with_name(name + suffix) for name in names]
    elif output is not None and len(objects) == 1:
        paths = [output]
    else:
        folder = output or Path()
        paths = [folder / (name + DEFAULT_SUFFIX) for name in _object_names(generation, images)]
    planned = []
    for (image, prompt, seed), path in zip(objects, paths, strict=True):
        preview_path = None if preview == "none" else path.with_name(f"{splat_stem(path)}.{preview}")
        mesh_path = path.with_name(splat_stem(path) + MESH_SUFFIX) if mesh else None
        planned.append(PlannedObject(prompt, seed, path, preview_path, image, mesh_path))
    return planned


def check_outputs(planned: list[PlannedObject], *, force: bool) -> None:
    """Refuse files that could not be written, before minutes are spent on them.

    Raises:
        ValueError: names the file and the reason.
    """
    for item in planned:
        if item.splats.is_dir():
            raise InvalidInputError(f"cannot write {str(item.splats)!r}: it is a directory, expected a file")
        if splat_suffix(item.splats) not in WRITABLE_SUFFIXES:
            raise InvalidInputError(
                f"{str(item.splats)!r} has the suffix {item.splats.suffix!r}, expected "
                f"{', '.join(WRITABLE_SUFFIXES)}"
            )
        for path in item.paths:
            check_output(path, force=force)


def check_output(path: Path, *, force: bool) -> None:
    """Refuse a file that could not be written; folders that are missing are made later, by ``make_folder``.

    Raises:
        ValueError: names the file and the reason.
    """
    check_folder(path.parent)
    if path.parent.is_dir():
        require_writable(path, force=force)


def check_folder(folder: Path) -> None:
    """Refuse a folder that does not exist and cannot be made.

    Raises:
        ValueError: when a file is in its place or above it, or the folder that it would lie in is not writable.
    """
    there = next(above for above in (folder, *folder.absolute().parents) if above.exists())
    if not there.is_dir():
        place = "it" if there == folder else repr(str(there))
        raise InvalidInputError(f"cannot write into {str(folder)!r}: {place} is a file, expected a folder")
    if there != folder:
        with explained_os_errors(f"cannot write into {str(there)!r}"), tempfile.TemporaryFile(dir=there):
            pass


def _object_names(generation: Generation, images: tuple[Path, ...]) -> list[str]:
    """A distinct name for every object: its prompt's or image's, a number where names repeat, the seed where asked."""
    prompts = generation.prompts
    if len(images) > 1:
        slugs = [
            slug(image.stem if len(prompts) == 1 else f"{image.stem} {prompt}")
            for image in images
            for prompt in prompts
        ]
    else:
        unnamed = images[0].stem if images else "object"
        slugs = [slug(prompt or unnamed) for prompt in prompts]
    repeats = Counter(slugs)
    seen: Counter[str] = Counter()
    names: list[str] = []
    for name, seeds in zip(slugs, generation.seeds_of_prompts * max(1, len(images)), strict=True):
        seen[name] += 1
        label = name if repeats[name] == 1 else f"{name}-{seen[name]}"
        names += [label] if len(seeds) == 1 else [f"{label}-seed{seed}" for seed in seeds]
    return names
