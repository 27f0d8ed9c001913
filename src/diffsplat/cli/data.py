"""``diffsplat data``: from meshes or renderings to training views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffsplat.data.archive_unpacking import unpack
from diffsplat.data.caption_file_overrides import captioned
from diffsplat.data.caption_files import read_captioned_objects, read_captions
from diffsplat.data.credits_page import credits_page
from diffsplat.data.gobjaverse import gobjaverse_conversion
from diffsplat.data.manifest_meshes import manifest_objects
from diffsplat.data.mesh_ingestion import RenderOptions, ingest
from diffsplat.data.mesh_ingestion import relabel as relabel_shards
from diffsplat.data.mesh_sources import folder_objects
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.data.object_id_lists import read_ids
from diffsplat.data.object_table import ObjectTable
from diffsplat.data.shard_writing import ShardReport, fill_shards
from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import atomic_path

Source = Annotated[Path, tyro.conf.Positional]


def render(
    source: Source,
    out: Path,
    options: Annotated[RenderOptions, tyro.conf.arg(name="")],
    manifest: str | None = None,
    captions: Path | None = None,
    relabel: bool = False,
) -> None:
    """Render a folder or archive of meshes (glb, gltf, obj, ply, stl, off) into training views.

    Args:
        source: Folder of mesh files, searched with all its subfolders; or a tar or zip archive or Debian package.
        out: Folder for the shards; run the same command again to go on after an interruption.
        options: How to render.
        manifest: What the objects are and who made them: a JSON file, on disk or in the archive, or the name of one
            that comes with the package (kaykit, sweethome3d). Without it the files' names say what they are.
        captions: Captions from a .csv (file,caption or file,caption,noun) or .json {"chairs/a.glb": "a red chair"}.
        relabel: Render nothing; bring the captions of the shards that exist up to date.
    """
    folder = unpack(source, out / "unpacked")
    collection = source.name.split(".")[0]
    listing = folder_objects(folder) if manifest is None else manifest_objects(folder, manifest, collection)
    if captions is not None:
        listing = captioned(listing, read_captioned_objects(captions))
    if relabel:
        print(f"{relabel_shards(listing, out)} rows relabelled.")
        return
    report = ingest(listing, out, options)
    print(_summary(report))
    if report.failed:
        raise InvalidInputError(f"none of the {len(report.broken)} meshes could be rendered")


def gobjaverse(
    source: Source,
    out: Path,
    captions: Path | None = None,
    index: Path | None = None,
    ids: Path | None = None,
    size: int = 256,
    processes: int = 0,
    ray: str | None = None,
) -> None:
    """Convert G-Objaverse (rendered Objaverse, 38 different views an object) into training views.

    Args:
        source: Folder of objects, each a folder or .tar archive with campos_512_v4 inside; or one of them.
        out: Folder for the shards; run the same command again to go on after an interruption.
        captions: Captions as .json {"0/10010": "a red chair"} or Cap3D's .csv (uid,caption); objects without one
            are left out. Without this option every caption is empty.
        index: The public index .json {"0/10010": "000-142/uid.glb"}, for captions that name objects by their uid.
        ids: File that lists the objects to convert, .json or .csv or lines of text; all by default.
        size: Pixels per side in the shards; the renderings have 512.
        processes: How many processes, 0 for one per core.
        ray: Convert on a Ray cluster: its address, or auto for the one that runs here, else one of this machine.
    """
    listing = gobjaverse_conversion.list_objects(
        source,
        None if captions is None else read_captions(captions),
        None if index is None else gobjaverse_conversion.read_index(index),
        None if ids is None else read_ids(ids),
    )
    work = partial(gobjaverse_conversion.convert_object, size=size)
    report = fill_shards(listing, work, out, size=size, processes=processes, ray=ray)
    print(_conversion_summary(report))
    if report.failed:
        raise InvalidInputError(f"none of the {len(report.broken)} objects could be converted")


def write_credits(
    folders: Annotated[list[Path], tyro.conf.Positional], out: Path, force: bool = False
) -> None:
    """Write a credits page (Markdown) for every object in rendered shards.

    Args:
        folders: Folders of shards.
        out: The file to write.
        force: Replace an existing file.
    """
    page = credits_page(ObjectTable(folders))
    with atomic_path(out, force=force) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(out)


def nouns(
    folders: Annotated[list[Path], tyro.conf.Positional], split: Literal["train", "test", "all"] = "all"
) -> None:
    """List the nouns of rendered shards and how many objects each has, repainted versions not counted.

    Args:
        folders: Folders of shards.
        split: Which objects.
    """
    for noun, count in ObjectDataset(folders, split=split).noun_counts().most_common():
        print(f"{count:5d}  {noun}")


def _summary(report: ShardReport) -> str:
    lines = [
        f"{report.rendered} objects rendered ({report.rows} rows), {report.resumed} were there already, "
        f"{len(report.left_out)} left out as no objects, {len(report.broken)} broken, "
        f"{len(report.losses)} incomplete."
    ]
    tables = _table("broken mesh", report.broken) + _table("incomplete mesh", report.losses)
    return "\n".join(lines + tables)


def _conversion_summary(report: ShardReport) -> str:
    lines = [
        f"{report.rendered} objects converted, {report.resumed} were there already, {len(report.left_out)} have "
        f"no caption, {len(report.broken)} broken or without four even views; {len(report.dropped_views)} views "
        "dropped."
    ]
    reasons = Counter(reason for _, reason in report.dropped_views).most_common()
    counts = [(str(count), reason) for reason, count in reasons]
    return "\n".join(lines + _table("dropped object", report.broken) + _table("dropped views", counts))


def _table(heading: str, lines: Sequence[tuple[str, str]]) -> list[str]:
    if not lines:
        return []
    width = max(len(heading), *(len(name) for name, _ in lines))
    return ["", f"{heading:{width}}  reason", *(f"{name:{width}}  {reason}" for name, reason in lines)]


COMMANDS: dict[str, Callable[..., None]] = {
    "render": render,
    "gobjaverse": gobjaverse,
    "credits": write_credits,
    "nouns": nouns,
}
