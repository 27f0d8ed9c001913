"""``diffsplat generate``: prompts, an image or a control map to splats."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from diffsplat import __version__
from diffsplat.cli.option_help import OUTPUT_ALIASES, Flag, option
from diffsplat.cli.output_paths import (
    UP_AXES,
    PlannedObject,
    Preview,
    Up,
    check_folder,
    check_outputs,
    plan_objects,
)
from diffsplat.errors import InvalidInputError
from diffsplat.images.image_framing_options import IMAGE_SUFFIXES, ImageFraming
from diffsplat.io.file_access import make_folder, require_readable
from diffsplat.io.prompt_lists import read_prompts
from diffsplat.io.splat_suffixes import WRITABLE_SUFFIXES
from diffsplat.pipelines.generation_options import Generation, ResolvedGeneration
from diffsplat.pipelines.model_opening import ModelChoice, OpeningOptions
from diffsplat.pretrained.release_catalogue import ControlKind

if TYPE_CHECKING:
    from torch import Tensor

    from diffsplat.images.image_cutout_and_framing import ImageSource
    from diffsplat.pipelines import DiffSplatPipeline
    from diffsplat.pipelines.image_and_control_conditions import ConditionImages


@dataclass(frozen=True)
class ConditionArguments:
    """Images and control maps, for models that take them."""

    image: Annotated[tuple[Path, ...], option("FILE ...")] = ()
    """Images of objects, or folders of images; each gives objects of its own. Their background is removed unless
    they are transparent."""
    framing: Annotated[ImageFraming, tyro.conf.arg(name="")] = field(default_factory=ImageFraming)
    control: tyro.conf.UseAppendAction[Annotated[tuple[ControlKind, ...], option("depth|normal|canny")]] = ()
    """Follow a control map of the first view, with a model that takes it, such as mini or sd15. With sd15 also together
    with an image, and given again, another map as well."""
    control_image: Annotated[Path | None, option("FILE")] = None
    """The control map as an image."""
    control_photo: Annotated[Path | None, option("FILE")] = None
    """A photo whose edges are the control map (--control canny)."""
    control_from: tyro.conf.UseAppendAction[Annotated[tuple[Path, ...], option("FILE")]] = ()
    """Splats (.ply, .spz, ...) or a mesh (.glb, .obj, ...) whose first view gives the control map, or an image of
    such a map. For several maps give one for each, or one object for all."""
    ip_adapter_image: Annotated[Path | None, option("FILE")] = None
    """With --ip-adapter, an image that is a prompt as well; it is not cut out."""

    def check(self) -> None:
        """Refuse options that do not fit each other, and files that are not there."""
        for path in (*self.control_sources().values(), self.ip_adapter_image):
            if path is not None:
                require_readable(path)
        if not self.image and self.framing != ImageFraming():
            raise InvalidInputError("options of an image were given without --image, expected an image")

    def control_sources(self) -> dict[ControlKind, Path]:
        """The file that each kind of control map comes from; that of canny may be a photo.

        Raises:
            ValueError: when there are too few files or too many, or a kind twice.
        """
        photos = [self.control_photo] if self.control_photo else []
        images = [self.control_image] if self.control_image else []
        given = [*images, *photos, *self.control_from]
        if not self.control:
            if given:
                raise InvalidInputError(f"{str(given[0])!r} was given without --control, expected its kind")
            return {}
        if photos and "canny" not in self.control:
            raise InvalidInputError(f"--control-photo goes with --control canny, not {self.control[0]}")
        others: list[ControlKind] = [kind for kind in self.control if not (photos and kind == "canny")]
        files = [*images, *self.control_from]
        if files == list(self.control_from[:1]):
            files *= len(others)
        if len(files) != len(others) or len(set(self.control)) < len(self.control) or (images and files[1:]):
            expected = "one of --control-image, --control-photo and --control-from"
            if len(self.control) > 1:
                expected = "each kind once, and one --control-from for each or for all"
            raise InvalidInputError(
                f"--control {' '.join(self.control)} was given with {len(given)} images, expected {expected}"
            )
        sources = dict(zip(others, files, strict=True))
        if photos:
            sources["canny"] = photos[0]
        return sources

    def image_files(self) -> tuple[Path, ...]:
        """The images, those of folders by name.

        Raises:
            ValueError: when one cannot be read, or a folder holds none.
        """
        return tuple(file for path in self.image for file in _images_at(path))

    def prepare(
        self, pipe: DiffSplatPipeline, generation: ResolvedGeneration, image: Path | None
    ) -> ConditionImages:
        """One of the images at the model's size, and the control maps, rendered from the image's elevation."""
        if not self.control:
            return pipe.prepare(image, framing=self.framing, ip_adapter_image=self.ip_adapter_image)
        from diffsplat.pipelines.image_and_control_conditions import ConditionImages, condition_image

        size = pipe.autoencoder.image_size
        cut_out = image and condition_image(image, size, cut_out=True, framing=self.framing).image
        degrees = pipe.resolve(generation, ConditionImages(cut_out)).elevation_deg
        sources = self.control_sources()
        maps: list[ImageSource] = [
            self._control_map(kind, sources[kind], degrees, size) for kind in self.control
        ]
        return pipe.prepare(cut_out, maps, ip_adapter_image=self.ip_adapter_image)

    def _control_map(self, kind: ControlKind, path: Path, elevation_deg: float, size: int) -> Tensor:
        """``[3, size, size]`` of an image of a map, a photo or an object."""
        from diffsplat.pipelines.control_maps import canny_map, control_maps_from
        from diffsplat.pipelines.image_and_control_conditions import condition_image

        photo = kind == "canny" and self.control_photo is not None
        if not photo and path != self.control_image and path.suffix.lower() not in IMAGE_SUFFIXES:
            return control_maps_from(path, kind, elevation_deg=elevation_deg, size=size)
        image = condition_image(path, size, cut_out=False).image
        return canny_map(image) if photo else image


@dataclass(frozen=True)
class ListArguments:
    """Long lists of prompts."""

    sharded: Flag = False
    """Write the objects of --prompts into numbered folders of the folder --output, each with a .json that says how it
    was made, and a Parquet index; the same command goes on where it stopped."""
    part: Annotated[int, tyro.conf.arg(metavar="N")] = 1000
    """With --sharded, prompts of a numbered folder."""
    format: Annotated[str, tyro.conf.arg(metavar="SUFFIX")] = ".ply"
    """With --sharded, suffix of the splat files."""
    objects_per_pass: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """With --sharded, objects that are generated together (default: as many as a GPU's memory holds, 1 on a CPU)."""
    ray: Annotated[str | None, option("auto|ADDRESS")] = None
    """With --sharded, generate on a Ray cluster, with a model on every GPU; auto is the one that runs here, else one of
    this machine."""

    def check(self, arguments: GenerateArguments) -> None:
        """Refuse options that do not fit each other."""
        if not self.sharded:
            if replace(self, sharded=True) != ListArguments(sharded=True):
                raise InvalidInputError(
                    "--part, --format, --objects-per-pass or --ray was given without --sharded, expected both"
                )
            return
        if arguments.prompts_file is None or arguments.output is None or arguments.generation.prompts:
            raise InvalidInputError(
                "--sharded was given, expected --prompts FILE and --output FOLDER, and no prompt"
            )
        if arguments.conditions != ConditionArguments() or arguments.preview != "none" or arguments.force:
            raise InvalidInputError(
                "--sharded takes no images, control maps, previews or --force, expected none"
            )
        if self.format not in WRITABLE_SUFFIXES:
            raise InvalidInputError(f"the format is {self.format!r}, expected {', '.join(WRITABLE_SUFFIXES)}")
        if self.part < 1 or self.objects_per_pass < 0:
            raise InvalidInputError(
                f"part {self.part}, objects per pass {self.objects_per_pass}: expected at least 1 and 0"
            )


@dataclass(frozen=True)
class GenerateArguments:
    """Options of ``diffsplat generate``."""

    generation: Annotated[Generation, tyro.conf.arg(name="")] = field(default_factory=Generation)
    prompts_file: Annotated[
        Path | None, tyro.conf.arg(name="prompts", metavar="FILE", help_behavior_hint="")
    ] = None
    """Text file with one more prompt in every line."""
    output: Annotated[Path | None, option("PATH", aliases=OUTPUT_ALIASES)] = None
    """Where to write. For one object a splat file, .ply, .compressed.ply, .splat, .spz, .sog, .glb or .gltf
    (default: a .ply named after the prompt); for several a folder (default: this one), or the name of a splat
    file that gets numbers."""
    up: Annotated[Up | None, option("y|-y|z", "(default: what is usual in the format)")] = None
    """Axis that points up in the files; many viewers of .ply want -y."""
    preview: Preview = "none"
    """Also write images of the splats: four views between those that are generated (png), or a turntable (gif, mp4)."""
    mesh: Flag = False
    """Also write a closed triangle mesh with a texture (.mesh.glb)."""
    force: Flag = False
    """Replace existing files."""
    model: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")] = "mini"
    """mini (comes with the package), a released backbone (sd15, pixart-sigma, sd35m; 'diffsplat models' lists
    them), or a model folder."""
    opening: Annotated[OpeningOptions, tyro.conf.arg(name="")] = field(default_factory=OpeningOptions)
    conditions: Annotated[ConditionArguments, tyro.conf.arg(name="")] = field(
        default_factory=ConditionArguments
    )
    listed: Annotated[ListArguments, tyro.conf.arg(name="")] = field(default_factory=ListArguments)


def command(arguments: Annotated[GenerateArguments, tyro.conf.arg(name="")]) -> None:
    """Generate 3D Gaussian splats from prompts, an image or a control map.

    The paths of the written files are printed, one a line.
    """
    conditions, generation = arguments.conditions, arguments.generation
    conditions.check()
    arguments.listed.check(arguments)
    images = conditions.image_files()
    model = ModelChoice(arguments.model, bool(images), conditions.control, arguments.opening)
    model.check()
    if (conditions.ip_adapter_image is None) != (arguments.opening.ip_adapter is None):
        raise InvalidInputError("--ip-adapter and --ip-adapter-image go together, expected both or none")
    if arguments.listed.sharded:
        _generate_list(model, arguments)
        return
    if arguments.prompts_file is not None:
        prompts = (*generation.prompts, *read_prompts(arguments.prompts_file))
        generation = replace(generation, prompts=prompts)
    resolved = generation.resolved(model.defaults(), from_image=bool(images))
    planned = plan_objects(resolved, arguments.output, arguments.preview, images, mesh=arguments.mesh)
    check_outputs(planned, force=arguments.force)
    if arguments.mesh:
        from diffsplat.meshing.surface_extraction import require_meshing

        require_meshing()
    for path in _generate_all(model, resolved, planned, arguments):
        print(path, flush=True)


def _generate_list(model: ModelChoice, arguments: GenerateArguments) -> None:
    """Generate a long list of prompts into a folder; prints the folder of the index."""
    from diffsplat.pipelines.bulk_generation import INDEX_FOLDER, BulkJob, PromptFile, generate_list

    listed, path, out = arguments.listed, arguments.prompts_file, arguments.output
    if path is None or out is None:
        raise TypeError("the options were not checked")
    if arguments.generation.seeds or arguments.generation.negative_prompts:
        raise InvalidInputError(
            "--seeds and --negative-prompts were given for a list of prompts, expected --seed and --negative-prompt"
        )
    check_folder(out)
    job = BulkJob(
        PromptFile.open(path, listed.part),
        out,
        replace(arguments.generation, prompts=("-",)).resolved(model.defaults()),
        {"model": model.label, "revision": model.revision(), "version": __version__},
        listed.format,
        arguments.up and UP_AXES[arguments.up],
        listed.objects_per_pass,
    )
    failed = generate_list(job, model.open, ray=listed.ray)
    if failed:
        print(f"{failed} objects could not be made, see the column 'error' of the index", file=sys.stderr)
    print(out / INDEX_FOLDER)


def _images_at(path: Path) -> list[Path]:
    """The file, or the images of a folder."""
    if not path.is_dir():
        if not path.exists() and not path.suffix:
            raise InvalidInputError(
                f"there is no image {str(path)!r}, expected files after --image; put prompts before it"
            )
        return [require_readable(path)]
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise InvalidInputError(
            f"the folder {str(path)!r} holds no images, expected {', '.join(IMAGE_SUFFIXES)}"
        )
    return files


def _generate_all(
    model: ModelChoice,
    generation: ResolvedGeneration,
    planned: list[PlannedObject],
    arguments: GenerateArguments,
) -> Iterator[Path]:
    """Generate and write one object after the other; yields the paths of finished files."""
    from tqdm import tqdm

    from diffsplat.pipelines.object_writing import write_object

    pipe = model.open(generation.texts, generation.clip_skip)
    # All of them first, so that an image that cannot be used ends the command before the first object.
    conditions = {
        image: arguments.conditions.prepare(pipe, generation, image)
        for image in dict.fromkeys(item.image for item in planned)
    }
    options = {image: pipe.resolve(generation, images) for image, images in conditions.items()}
    if generation.elevation is None:
        for image, resolved in options.items():
            degrees = resolved.elevation_deg
            print(f"{str(image)!r} was taken from {degrees:.1f} degrees above the horizon", file=sys.stderr)
    up = arguments.up and UP_AXES[arguments.up]
    noticed: set[str] = set()
    with tqdm(total=len(planned) * generation.steps, unit="step", file=sys.stderr, leave=False) as bar:
        for number, item in enumerate(planned):  # the objects of the first image, then those of the next
            bar.set_description(item.name[:40])
            single = options[item.image].single(number % len(generation.objects))
            (made,) = pipe.generate(single, conditions[item.image], lambda *_: bar.update()).objects()
            if made.notice is not None and made.prompt not in noticed:
                noticed.add(made.prompt)
                bar.write(made.notice, file=sys.stderr)
            make_folder(item.splats.parent)
            for path in item.paths:
                write_object(made, path, up=up, force=arguments.force)
                yield path
