"""Files of meshes: glTF, OBJ, STL and PLY, written by trimesh."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from diffsplat.core.srgb import srgb_to_linear
from diffsplat.errors import InvalidInputError, optional_package
from diffsplat.io.file_access import atomic_path, require_suffix, require_writable

if TYPE_CHECKING:
    from diffsplat.meshing.splat_meshing import ColoredMesh

WRITABLE_MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".stl", ".ply")
"""Suffixes of the mesh files that can be written."""


def mesh_paths(target: Path, *, textured: bool) -> tuple[Path, ...]:
    """Every file that a mesh is written to: an ``.obj`` has its material, and its texture, in files of their own.

    Raises:
        ValueError: for an unknown suffix.
    """
    suffix = require_suffix(target, WRITABLE_MESH_SUFFIXES, "a mesh: ")
    if suffix == ".obj" and textured:
        return target, target.with_suffix(".mtl"), target.with_suffix(".png")
    return (target,)


def write_mesh(mesh: "ColoredMesh", target: Path, *, force: bool = False) -> None:
    """Write a mesh in the format that the suffix names; every file is complete or absent.

    ``.glb`` and ``.gltf`` hold a material without metal and with a roughness of 1. ``.ply`` holds colours at the
    vertices, which a textured mesh does not have; ``.stl`` holds the shape alone.

    Raises:
        ValueError: for an unknown suffix, a path that cannot be written, or a ``.ply`` of a textured mesh.
        ImportError: when trimesh is not installed.
    """
    paths = mesh_paths(target, textured=mesh.texture is not None)
    if target.suffix.lower() == ".ply" and mesh.colors is None:
        raise InvalidInputError(f"{str(target)!r} holds no texture, expected a mesh with vertex colors")
    for path in paths:
        require_writable(path, force=force)
    for path, data in zip(paths, _encoded(mesh, target), strict=True):
        with atomic_path(path, force=force) as temporary:
            temporary.write_bytes(data)


def _encoded(mesh: "ColoredMesh", target: Path) -> list[bytes]:
    """The bytes of each of the files."""
    suffix = target.suffix.lower()
    if suffix == ".gltf":
        return [_embedded_gltf(_scene_mesh(mesh, suffix))]
    if suffix != ".obj" or mesh.texture is None:
        data = _scene_mesh(mesh, suffix).export(file_type=suffix[1:])
        return [data.encode() if isinstance(data, str) else data]
    with optional_package("writing meshes", "trimesh", "mesh"):
        from trimesh.exchange.obj import export_obj
    text, files = export_obj(
        _scene_mesh(mesh, suffix),
        return_texture=True,
        include_normals=True,
        mtl_name=target.with_suffix(".mtl").name,
    )
    image = next(name for name in files if not name.endswith(".mtl"))
    material = next(data for name, data in files.items() if name.endswith(".mtl"))
    renamed = material.replace(image.encode(), target.with_suffix(".png").name.encode())
    return [text.encode(), renamed, files[image]]


def _scene_mesh(mesh: "ColoredMesh", suffix: str) -> Any:
    """The mesh as trimesh has it; its texture coordinates count upwards.

    MTL and glTF multiply the texture with a colour, which must be white. Colours at the vertices are linear in glTF.
    """
    with optional_package("writing meshes", "trimesh", "mesh"):
        import trimesh
        from trimesh.visual.color import ColorVisuals
        from trimesh.visual.material import PBRMaterial, SimpleMaterial
        from trimesh.visual.texture import TextureVisuals
    physical = suffix in (".glb", ".gltf")
    visual: Any = None
    if mesh.texture is not None and mesh.uv is not None:
        image = Image.fromarray(mesh.texture)
        image.format = "PNG"
        white = [255, 255, 255, 255]
        material = (
            PBRMaterial(name="splats", baseColorTexture=image, metallicFactor=0.0, roughnessFactor=1.0)
            if physical
            else SimpleMaterial(image=image, diffuse=white, ambient=white, specular=[0, 0, 0, 255])
        )
        visual = TextureVisuals(uv=mesh.uv * [1, -1] + [0, 1], material=material)
    elif mesh.colors is not None and physical:
        visual = TextureVisuals(material=PBRMaterial(name="splats", metallicFactor=0.0, roughnessFactor=1.0))
        linear = np.rint(srgb_to_linear(mesh.colors / 255.0) * 255).astype(np.uint8)  # trimesh writes bytes
        visual.vertex_attributes["color"] = np.column_stack([linear, np.full(len(linear), 255, np.uint8)])
    elif mesh.colors is not None:
        visual = ColorVisuals(vertex_colors=mesh.colors)
    return trimesh.Trimesh(
        mesh.positions, mesh.faces, vertex_normals=mesh.normals, visual=visual, process=False, validate=False
    )


def _embedded_gltf(made: Any) -> bytes:
    """The bytes of a ``.gltf`` file that holds its buffers and its texture in base64."""
    from trimesh.exchange.gltf import export_gltf

    files = export_gltf(made.scene(), embed_buffers=True)
    return files["model.gltf"]
