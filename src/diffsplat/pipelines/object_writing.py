"""Writing generated objects: splats, meshes, contact sheets and turntables, by the suffix of a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffsplat.geometry import BETWEEN_AZIMUTHS_DEG, orbit_cameras
from diffsplat.io.image_files import tile_images, write_image
from diffsplat.io.splat_formats import UpAxis, write_splats
from diffsplat.io.splat_suffixes import MESH_SUFFIX, splat_suffix
from diffsplat.io.video_files import VIDEO_WRITERS
from diffsplat.meshing.mesh_writing import write_mesh
from diffsplat.meshing.splat_meshing import mesh_from_splats
from diffsplat.pipelines.pipeline_output import GeneratedObject
from diffsplat.pipelines.turntable_video import write_turntable
from diffsplat.render import render

_IMAGE_SIZE = 256


def write_object(
    item: GeneratedObject,
    path: Path,
    *,
    views: int | None = None,
    frames: int = 60,
    up: UpAxis | None = None,
    force: bool = False,
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Write an object: splats, a mesh (``.mesh.glb``), a turntable (``.mp4``, ``.gif``, ``.webp``) or a contact sheet.

    Args:
        item: from :meth:`~diffsplat.pipelines.pipeline_output.SplatOutput.objects`.
        path: its suffix decides.
        views: how many of the generated views are on the contact sheet; by default it shows the object from four sides
            in the middle between them, where faults would show.
        frames: of a turntable, 20 a second.
        up: axis that points up in a file of splats; what is usual in the format by default.
        force: replace an existing file.
        origin: how the object was made; JSON values that are kept in the file of splats where its format has room.

    Raises:
        ValueError: when the file cannot be written, or the splats show no object that has a mesh.
        ImportError: for a mesh, when a package of the extra ``mesh`` is not installed.
    """
    if path.name.lower().endswith(MESH_SUFFIX):
        write_mesh(mesh_from_splats(item.splats), path, force=force)
    elif splat_suffix(path) is not None:
        write_splats(item.splats, path, force=force, up=up, origin=origin)
    elif path.suffix.lower() in VIDEO_WRITERS:
        write_turntable(item, path, frames=frames, force=force)
    else:
        if views is None:
            size = {"width": _IMAGE_SIZE, "height": _IMAGE_SIZE}
            cameras = orbit_cameras(BETWEEN_AZIMUTHS_DEG, item.elevation_deg, **size)
        else:
            cameras = item.cameras[:views].resized(_IMAGE_SIZE, _IMAGE_SIZE)
        write_image(tile_images(render(item.splats, cameras, normals=False).rgb), path, force=force)
