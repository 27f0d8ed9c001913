"""``diffsplat mesh``: splats to a closed, textured mesh."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffsplat.cli.option_help import OUTPUT_ALIASES, Flag, option
from diffsplat.cli.output_paths import UP_AXES, Up
from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import require_readable, require_writable


@dataclass(frozen=True)
class MeshArguments:
    """Options of ``diffsplat mesh``."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """Splats of one object: .ply, .compressed.ply, .splat, .spz, .ksplat, .sog, .glb or .gltf, or the folder of an
    unpacked .sog."""
    output: Annotated[Path | None, option("MESH", aliases=OUTPUT_ALIASES)] = None
    """Where to write: .glb, .gltf, .obj (with .mtl and .png), .stl (no colours) or .ply (colours at the vertices);
    default: FILE's name with .mesh.glb."""
    faces: Annotated[int, tyro.conf.arg(metavar="N")] = 10_000
    """Most triangles."""
    texture_size: Annotated[int, tyro.conf.arg(metavar="PIXELS")] = 1024
    """Width and height of the texture."""
    vertex_colors: Flag = False
    """One colour a vertex, and no texture."""
    resolution: Annotated[int, tyro.conf.arg(metavar="N")] = 192
    """Voxels along the object's longest side; more find finer parts."""
    origin: Literal["splats", "center", "base"] = "splats"
    """Where the origin is: as in FILE, in the middle of the object, or in the middle of its base."""
    from_up: Annotated[
        Up | None, option("y|-y|z", "(default: what FILE says, or what is usual in the format)")
    ] = None
    """Axis that points up in FILE; the mesh has +Y up."""
    force: Flag = False
    """Replace existing files."""


def command(arguments: Annotated[MeshArguments, tyro.conf.arg(name="")]) -> None:
    """Turn splats into a closed triangle mesh with a texture.

    The paths of the written files are printed, one a line.
    """
    from diffsplat.io.splat_suffixes import splat_stem, unpacked_sog_folder

    source = unpacked_sog_folder(arguments.file) or require_readable(arguments.file)
    target = arguments.output or Path(f"{splat_stem(source.resolve())}.mesh.glb")
    colored = arguments.vertex_colors or target.suffix.lower() in (".ply", ".stl")
    paths = _writable_paths(source, target, textured=not colored, force=arguments.force)
    from tqdm import tqdm

    from diffsplat.io.splat_formats import read_splats
    from diffsplat.meshing.mesh_writing import write_mesh
    from diffsplat.meshing.splat_meshing import STAGES, MeshOptions, mesh_from_splats

    options = MeshOptions(
        faces=arguments.faces,
        texture_size=arguments.texture_size,
        vertex_colors=colored,
        origin=arguments.origin,
        resolution=arguments.resolution,
    )
    splats = read_splats(source, up=arguments.from_up and UP_AXES[arguments.from_up])
    with tqdm(total=len(STAGES), unit="stage", file=sys.stderr, leave=False) as bar:

        def report(stage: str) -> None:
            bar.set_description(stage)
            bar.update()

        mesh = mesh_from_splats(splats, options, report)
    write_mesh(mesh, target, force=arguments.force)
    for path in paths:
        print(path)


def _writable_paths(source: Path, target: Path, *, textured: bool, force: bool) -> tuple[Path, ...]:
    """The files of a mesh at ``target``, none of which is ``source``."""
    from diffsplat.meshing.mesh_writing import WRITABLE_MESH_SUFFIXES, mesh_paths

    paths = mesh_paths(target, textured=textured)
    if any(path.resolve() == source.resolve() for path in paths):
        raise InvalidInputError(
            f"{str(target)!r} is the file that is read, expected another one of {', '.join(WRITABLE_MESH_SUFFIXES)}"
        )
    for path in paths:
        require_writable(path, force=force)
    return paths
