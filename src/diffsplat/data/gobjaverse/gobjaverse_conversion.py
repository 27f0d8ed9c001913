"""G-Objaverse into shards: even rings kept, broken views dropped, the world normalised."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn import functional

from diffsplat.core import DEFAULT_RADIUS, Cameras
from diffsplat.data import shard_schema
from diffsplat.data.caption_files import Captions
from diffsplat.data.gobjaverse.gobjaverse_files import (
    CAMERA_FOLDER,
    BrokenViewError,
    StoredObject,
    StoredView,
)
from diffsplat.data.gobjaverse.gobjaverse_views import RINGS, VIEWS, mean_depth, resize, stored_cameras
from diffsplat.data.object_id_lists import is_named
from diffsplat.data.shard_schema import ObjectInfo
from diffsplat.data.shard_writing import Finished, ObjectListing, Row
from diffsplat.errors import InvalidInputError, MissingFileError
from diffsplat.geometry import elevation_deg
from diffsplat.io.file_access import require_readable
from diffsplat.io.image_files import to_pixels
from diffsplat.render.meshes.view_sets import FREE_VIEW

SOURCE = "G-Objaverse"
LICENSE = "ODC-By 1.0 (Objaverse; every object has a licence of its own)"


@dataclass(frozen=True)
class GObjaverseObject:
    """One object to convert.

    Args:
        name: its place below the source, such as ``0/10010``, or what an index file calls it.
        path: folder or archive.
        captions: one or more.
    """

    name: str
    path: Path
    captions: tuple[str, ...]

    @property
    def object_id(self) -> str:
        """Identity in the shards."""
        return f"gobjaverse/{self.name}"


GObjaverseListing = ObjectListing[GObjaverseObject]
"""The objects below a folder; those without a caption are left out."""


def list_objects(
    source: Path,
    captions: Captions | None = None,
    index: dict[str, str] | None = None,
    ids: Collection[str] | None = None,
) -> GObjaverseListing:
    """Every object below ``source``: folders with a ``campos_512_v4`` inside, and .tar archives.

    An object's captions are those of its place (``0/10010``), of its last part (``10010``), or of what ``index``
    says of its place, in this order. Without captions every object gets the empty one.

    Args:
        source: folder that is searched with all its subfolders, or one object.
        captions: of the objects; those that it lacks are left out.
        index: names of objects by their place, from :func:`read_index`.
        ids: only these objects, by place, last part or what ``index`` says; others are not counted.

    Raises:
        FileNotFoundError: there is no ``source``.
        ValueError: it holds no object, none of ``ids``, or none with a caption.
    """
    objects, without = [], []
    for place, path in sorted(_places(source).items()):
        known_as = (index or {}).get(place)
        names = [name for name in (place, place.split("/")[-1], known_as) if name is not None]
        if ids is not None and not any(is_named(name, ids) for name in names):
            continue
        found = next((captions[name] for name in names if name in captions), ()) if captions else ("",)
        if found:
            objects.append(GObjaverseObject(known_as or place, path, found))
        else:
            without.append(place)
    if not objects:
        raise _nothing_to_convert(source, without, ids)
    return GObjaverseListing(tuple(objects), tuple(without))


def _nothing_to_convert(
    source: Path, without: Sequence[str], ids: Collection[str] | None
) -> InvalidInputError:
    if without:
        return InvalidInputError(
            f"none of the {len(without)} objects in {source} has a caption; the file must name them as "
            f"{without[0]!r}, or an index must map this to the file's names"
        )
    if ids is not None:
        return InvalidInputError(f"{source} holds none of the {len(ids)} requested objects")
    return InvalidInputError(
        f"{source} holds no G-Objaverse object, expected {CAMERA_FOLDER} folders or .tar files"
    )


def read_index(path: Path | str) -> dict[str, str]:
    """The public file that maps places to Objaverse: ``{"0/10010": "000-142/<uid>.glb"}``, as place to uid.

    Raises:
        ValueError: the file is missing or not of this form.
    """
    try:
        values = json.loads(require_readable(path).read_text(encoding="utf-8-sig"))
        return {place: Path(name).name.removesuffix(".glb") for place, name in values.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidInputError(
            f"{str(path)!r} is not an index, expected a JSON object from places to .glb files"
        ) from error


def convert_object(item: GObjaverseObject, size: int) -> Finished:
    """The row of one object, and what of its views was dropped.

    A view that is broken or missing is dropped; what is left of its group of four becomes free views. The
    repeated views 24 and 39 are not read. The world is scaled until the first view is 1.4 from the origin.

    Raises:
        ValueError: the object cannot be read, or no group of four even views is whole.
    """
    stored = StoredObject(item.path)
    views: dict[int, StoredView] = {}
    dropped: list[tuple[str, str]] = []
    scale = 0.0
    for number in VIEWS:
        try:
            view = shrunk(stored.read(number), size)
            scale = scale or DEFAULT_RADIUS / float(torch.linalg.vector_norm(view.camera_to_world[:3, 3]))
            views[number] = _scaled(view, scale)
        except BrokenViewError as error:
            dropped.append((f"{item.object_id} view {number}", error.reason))
    rings = [ring for ring in RINGS if all(number in views for number in ring)]
    if not rings:
        reasons = ", ".join(sorted({reason for _, reason in dropped})[:3])
        raise InvalidInputError(f"no four even views are left of {len(VIEWS)}: {reasons}")
    numbers = {number: index for index, ring in enumerate(rings) for number in ring}
    return Finished([_row(item, views, [numbers.get(view, FREE_VIEW) for view in views])], tuple(dropped))


def shrunk(view: StoredView, size: int) -> StoredView:
    """A view with ``size`` pixels a side: alpha stays straight, normals unit, depth a mean over what is hit."""
    rgba, depth = view.rgba[None], view.depth[None]
    alpha = resize(rgba[:, 3:], size)
    color = resize(rgba[:, :3] * rgba[:, 3:], size) / alpha.clamp_min(1e-6)
    normal = functional.normalize(resize(view.normal[None], size), dim=1)
    return replace(
        view,
        rgba=torch.cat([color, alpha], dim=1)[0].clamp(0, 1),
        normal=normal[0],
        depth=mean_depth(depth, size)[0],
    )


def _scaled(view: StoredView, scale: float) -> StoredView:
    pose = view.camera_to_world.clone()
    pose[:3, 3] *= scale
    depth = view.depth * scale
    inside = depth[depth > 0]
    if bool(((inside < shard_schema.DEPTH_NEAR) | (inside > shard_schema.DEPTH_FAR)).any()):
        raise BrokenViewError(
            "a view",
            f"its depth leaves {shard_schema.DEPTH_NEAR}..{shard_schema.DEPTH_FAR} when the first camera is at "
            f"{DEFAULT_RADIUS}",
        )
    return replace(view, depth=depth, camera_to_world=pose)


def _row(item: GObjaverseObject, views: dict[int, StoredView], ring: list[int]) -> Row:
    kept = list(views.values())
    cameras = stored_cameras(kept)
    info = ObjectInfo(
        object_id=item.object_id,
        name=f"{SOURCE.lower()} {item.name}",
        noun="object",
        captions=item.captions,
        source=SOURCE,
        license=LICENSE,
        creator="unknown",
    )
    return {
        **info.columns(),
        "size": cameras.width,
        "azimuths": _azimuths(cameras),
        "elevations": elevation_deg(cameras).tolist(),
        "ring": ring,
        "camera_to_world": cameras.camera_to_world.flatten().tolist(),
        "intrinsics": cameras.intrinsics.flatten().tolist(),
        "rgba": [shard_schema.encode_image(to_pixels(view.rgba)) for view in kept],
        "normal": [shard_schema.encode_normal(view.normal.permute(1, 2, 0).numpy()) for view in kept],
        "depth": [shard_schema.encode_depth(view.depth[0].numpy()) for view in kept],
    }


def _azimuths(cameras: Cameras) -> list[float]:
    """Degrees in 0..360; 0 is +Z, 90 is +X."""
    x, _, z = cameras.centers.unbind(-1)
    return (torch.rad2deg(torch.atan2(x, z)) % 360).tolist()


def _places(source: Path) -> dict[str, Path]:
    """Folders and archives of objects by their place below ``source``, without suffix."""
    if not source.exists():
        raise MissingFileError(f"no such folder or archive of G-Objaverse: {source}")
    if source.is_file() or (source / CAMERA_FOLDER).is_dir():
        return {source.name.removesuffix(".tar"): source}
    places: dict[str, Path] = {}
    for folder, subfolders, files in os.walk(source, followlinks=True):
        here = Path(folder)
        if CAMERA_FOLDER in subfolders:
            subfolders.clear()
            places[here.relative_to(source).as_posix()] = here
            continue
        for name in files:
            if name.endswith(".tar"):
                path = here / name
                places.setdefault(path.relative_to(source).as_posix().removesuffix(".tar"), path)
    return places
