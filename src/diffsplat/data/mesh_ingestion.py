"""Rendering meshes into shards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diffsplat.core.stable_hash import stable_seed
from diffsplat.data import shard_schema
from diffsplat.data.caption_phrases import as_seen, captions, painted
from diffsplat.data.caption_sentences import sentences
from diffsplat.data.color_naming import color_shares, color_words
from diffsplat.data.mesh_sources import SourceListing, SourceObject
from diffsplat.data.object_repainting import repaints
from diffsplat.data.shard_folders import SHARDS
from diffsplat.data.shard_schema import ObjectInfo
from diffsplat.data.shard_writing import Finished, Row, ShardReport, fill_shards
from diffsplat.errors import InvalidInputError, require
from diffsplat.images.color_words import ColorWord
from diffsplat.render.meshes.mesh_renderer import MeshRenderer, Samples
from diffsplat.render.meshes.view_sets import ViewSet, view_set

_VARIANT_RINGS = (0, 1)
_VARIANT_FREE = 2
_PALETTE_PIXELS = 3000


@dataclass(frozen=True)
class RenderOptions:
    """How to render a source.

    Args:
        views: Which views: 24 for the embedded model, the 38 of G-Objaverse, or 40 on rings and free.
        size: Pixels per side.
        supersampling: Samples per pixel and side.
        recolor: Also make repainted versions of flat-coloured objects, whose captions name the new colour.
        processes: How many processes, 0 for one per core.
        ray: Render on a Ray cluster: its address, or auto for the one that runs here, else one of this machine.
    """

    views: Literal["mini", "gobjaverse", "orbits"] = "mini"
    size: int = 128
    supersampling: int = 2
    recolor: bool = True
    processes: int = 0
    ray: str | None = None


def ingest(listing: SourceListing, out: Path, options: RenderOptions) -> ShardReport:
    """Render every object of ``listing`` that ``out`` does not hold yet, in an order mixed by a hash.

    Shards appear whole or not at all; after an interruption the same call goes on with what is missing.

    Raises:
        ValueError: an option is out of range, or ``out`` is a file.
    """
    require(options.supersampling >= 1, "supersampling", options.supersampling, "at least 1")
    work = partial(render_object, options=options)
    size, processes = options.size, options.processes
    return fill_shards(listing, work, out, size=size, processes=processes, ray=options.ray)


def relabel(listing: SourceListing, out: Path) -> int:
    """Bring the nouns, captions, tags and credits of the shards in ``out`` up to date; images stay.

    Returns:
        The number of rows.

    Raises:
        ValueError: the shards hold an object that the source lacks.
    """
    pa = shard_schema.import_pyarrow()
    from pyarrow import parquet

    objects = {item.object_id: item for item in listing.objects}
    rows = 0
    for path in sorted(out.glob(SHARDS)):
        table = parquet.read_table(path)
        old = table.select(["object_id", "colors", "variant"]).to_pylist()
        missing = [row["object_id"] for row in old if row["object_id"].split("#")[0] not in objects]
        if missing:
            raise InvalidInputError(f"{path} holds {missing[0]}, which the source does not")
        new = [
            _columns(objects[row["object_id"].split("#")[0]], tuple(row["colors"]), row["variant"])
            for row in old
        ]
        for name in new[0]:
            field = shard_schema.table_schema().field(name)
            values = pa.array([row[name] for row in new], type=field.type)
            if name in table.column_names:
                table = table.drop_columns(name)
            table = table.append_column(field, values)
        table = table.select(shard_schema.table_schema().names)
        shard_schema.write_shard(table, path, force=True)
        rows += len(new)
    return rows


def render_object(item: SourceObject, options: RenderOptions) -> Finished:
    """The rows of one object: the original first, then its repainted versions.

    An object that lost something of its colours gets no colour in its captions and no repainted versions.

    Raises:
        ValueError: the mesh cannot be read, is empty or is invisible.
    """
    mesh = item.load()
    renderer = MeshRenderer(mesh, size=options.size, supersampling=options.supersampling)
    seed = stable_seed(item.object_id)
    views = view_set(options.views, seed)
    variants = item.variants if options.recolor and mesh.has_true_colors else 0
    shared = _variant_views(views) if variants else []
    images: dict[str, list[bytes]] = {name: [] for name in shard_schema.BLOB_COLUMNS}
    kept: list[Samples] = []
    unlit: list[NDArray[np.uint8]] = []
    for index, samples in enumerate(renderer.render(views.cameras())):
        if index in shared:
            kept.append(samples)
        if views.ring[index] == 0:
            unlit.append(samples.unlit_image())
        images["rgba"].append(shard_schema.encode_image(samples.image()))
        images["normal"].append(shard_schema.encode_normal(samples.normal))
        images["depth"].append(shard_schema.encode_depth(samples.depth))
    pixels = _visible_colors(unlit)
    words = color_words(color_shares(pixels)) if mesh.has_true_colors else ()
    rows = [_row(_columns(item, words), views, images, options.size)]
    for word, lut in repaints(pixels, words, variants, seed):
        repainted = {name: [blobs[index] for index in shared] for name, blobs in images.items()}
        repainted["rgba"] = [shard_schema.encode_image(samples.image(lut)) for samples in kept]
        rows.append(_row(_columns(item, (word,), word), views.subset(shared), repainted, options.size))
    lost = "; ".join(loss.text for loss in mesh.losses)
    return Finished(rows, losses=((item.object_id, lost),) if lost else ())


def _visible_colors(images: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """``[N, 3]`` sRGB 0..1 of a few thousand pixels that are more opaque than not.

    Raises:
        ValueError: nothing is visible.
    """
    pixels = np.concatenate([image.reshape(-1, 4) for image in images])
    solid = pixels[pixels[:, 3] > 127]
    if len(solid) < 16:
        solid = pixels[pixels[:, 3] > 12]
    if len(solid) < 4:
        raise InvalidInputError("nothing of the object is visible")
    return solid[:: max(1, len(solid) // _PALETTE_PIXELS), :3] / 255.0


def _variant_views(views: ViewSet) -> list[int]:
    rings = [i for i, ring in enumerate(views.ring) if ring in _VARIANT_RINGS]
    return rings + [i for i, ring in enumerate(views.ring) if ring < 0][:_VARIANT_FREE]


def _row(info: dict[str, Any], views: ViewSet, images: dict[str, list[bytes]], size: int) -> Row:
    cameras = views.cameras()
    return {
        **info,
        "size": size,
        **vars(views),
        "camera_to_world": cameras.camera_to_world.flatten().tolist(),
        "intrinsics": cameras.intrinsics.flatten().tolist(),
        **images,
    }


def _columns(item: SourceObject, colors: tuple[ColorWord, ...], variant: str = "") -> dict[str, Any]:
    """What a row says of an object, besides its views; a name for its colour goes before what the render shows."""
    colors = item.label.colors if item.label.colors and not variant else colors
    label = painted(item.label) if variant else as_seen(item.label, colors)
    info = ObjectInfo(
        object_id=item.object_id + (f"#{variant}" if variant else ""),
        name=item.name,
        noun=item.label.noun,
        captions=label.captions or (*captions(label, colors), *sentences(label, colors)),
        colors=colors,
        tags=item.tags,
        variant=variant,
        source=item.source,
        license=item.license,
        license_basis=item.license_basis,
        creator=item.creator,
    )
    return info.columns(item.split)
