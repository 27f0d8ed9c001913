"""``diffsplat reconstruct``: the reconstructor and the autoencoder of a model, without its denoiser."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from diffsplat.cli.option_help import OUTPUT_ALIASES, Flag, option
from diffsplat.cli.output_paths import check_output
from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import make_folder
from diffsplat.pipelines.model_opening import WeightsAndDevice

if TYPE_CHECKING:
    from diffsplat.core import Cameras, PixelGrid, SplatGrid

LATENTS = ".safetensors"


@dataclass(frozen=True)
class ReconstructArguments:
    """Options of ``diffsplat reconstruct``."""

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IN")]
    """Folder with a transforms.json of four views, their normals and depths or points; folder of shards of 'diffsplat
    data'; or latents (.safetensors) that this command wrote."""
    output: Annotated[Path, option("OUT", aliases=OUTPUT_ALIASES)]
    """Splats in any format, or .safetensors for the latents of the model's autoencoder."""
    object: Annotated[str | None, option("ID")] = None
    """Object of a folder of shards."""
    model: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")] = "mini"
    """Model whose reconstructor and autoencoder are used; the released ones share their reconstructor."""
    opening: Annotated[WeightsAndDevice, tyro.conf.arg(name="")] = field(default_factory=WeightsAndDevice)
    force: Flag = False
    """Replace an existing file."""


def command(arguments: Annotated[ReconstructArguments, tyro.conf.arg(name="")]) -> None:
    """Turn four views of an object into splats or latents, or latents into splats.

    The path of the written file is printed.
    """
    check_output(arguments.output, force=arguments.force)
    import torch

    from diffsplat.data.latent_files import StoredLatents
    from diffsplat.io.splat_formats import writable_format, write_splats
    from diffsplat.pretrained.reconstructor_and_autoencoder import model_autoencoder

    encoded = arguments.output.suffix == LATENTS
    if not encoded:
        writable_format(arguments.output)
    with torch.inference_mode():
        grid, cameras, pixel_grid = (
            _decoded(arguments) if arguments.source.suffix == LATENTS else _predicted(arguments)
        )
        make_folder(arguments.output.parent)
        if encoded:
            autoencoder = model_autoencoder(arguments.model, arguments.opening.weights).to(grid.values.device)
            latents = StoredLatents(autoencoder.encode(grid), cameras, arguments.model)
            latents.save(arguments.output, force=arguments.force)
        else:
            splats = grid.to_splats(cameras, pixel_grid).to("cpu")[0].visible()
            write_splats(splats, arguments.output, force=arguments.force)
    print(arguments.output)


def _decoded(arguments: ReconstructArguments) -> tuple[SplatGrid, Cameras, PixelGrid]:
    """The grid of latents from a file, its cameras and its pixel grid."""
    from diffsplat.data.latent_files import StoredLatents
    from diffsplat.pipelines.device_placement import choose_device
    from diffsplat.pretrained.reconstructor_and_autoencoder import model_autoencoder

    stored, device = StoredLatents.load(arguments.source), choose_device(arguments.opening.device)
    if stored.model != arguments.model:
        raise InvalidInputError(
            f"{str(arguments.source)!r} was encoded by the model {stored.model!r}, expected {arguments.model!r}"
        )
    autoencoder = model_autoencoder(arguments.model, arguments.opening.weights).to(device)
    return autoencoder.decode(stored.latents.to(device)), stored.cameras.to(device), autoencoder.pixel_grid


def _predicted(arguments: ReconstructArguments) -> tuple[SplatGrid, Cameras, PixelGrid]:
    """The grid that the reconstructor predicts of views, their cameras and its pixel grid."""
    from diffsplat.data.object_dataset import ObjectDataset
    from diffsplat.data.view_folders import read_view_folder
    from diffsplat.pipelines.device_placement import choose_device
    from diffsplat.pretrained.reconstructor_and_autoencoder import model_reconstructor, view_size

    device = choose_device(arguments.opening.device)
    reconstructor = model_reconstructor(arguments.model, arguments.opening.weights).to(device)
    size = view_size(arguments.model, reconstructor)
    composition = "released" if reconstructor.pixel_grid == "legacy" else "exact"
    if arguments.object is None:
        views = read_view_folder(arguments.source, size=size, composition=composition)
    else:
        dataset = ObjectDataset(
            arguments.source, split="all", ids=[arguments.object], composition=composition
        )
        views = dataset.canonical(0, size=size)
    views = views.to(device)
    return reconstructor(views), views.cameras, reconstructor.pixel_grid
