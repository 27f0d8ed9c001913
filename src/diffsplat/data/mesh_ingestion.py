"""Rendering whole sources of meshes into shards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffsplat.core.stable_hash import stable_seed
from diffsplat.data import shard_schema
from diffsplat.data.caption_phrases import as_seen, captions, painted
from diffsplat.data.color_naming import color_shares, color_words
from diffsplat.data.mesh_sources import SourceListing, SourceObject
from diffsplat.data.object_repainting import repaints
from diffsplat.data.shard_writing import Finished, ShardReport, fill_shards
from diffsplat.errors import InvalidInputError
from diffsplat.images.color_words import ColorWord
from diffsplat.render.meshes.mesh_renderer import MeshRenderer, Samples
from diffsplat.render.meshes.view_sets import ViewSet, ViewSetName, view_set

_VARIANT_RINGS = (0, 1)
_VARIANT_FREE = 2
_PALETTE_PIXELS = 3000


@dataclass(frozen=True)
class RenderOptions:
    """How to render a source.

    Args:
        views: name of the view set.
        size: pixels per side.
        supersampling: samples per pixel and side.
        recolor: also make repainted versions of flat-coloured objects.
        processes: how many at once, 0 for one per core.
    """

    views: ViewSetName = "mini"
    size: int = 128
    supersampling: int = 2
    recolor: bool = True
    processes: int = 0


def ingest(
    listing: SourceListing, out: Path, options: RenderOptions, *, progress: bool = True
) -> ShardReport:
    """Render every object of ``listing`` that ``out`` does not hold yet, in an order mixed by a hash.

    Shards appear whole or not at all; after an interruption the same call goes on with what is missing.

    Raises:
        ValueError: an option is out of range, or ``out`` is a file.
    """
    if options.size < 8 or options.supersampling < 1 or options.processes < 0:
        raise InvalidInputError(
            f"size {options.size}, supersampling {options.supersampling}, processes {options.processes}: "
            "expected at least 8, 1 and 0"
        )
    report = fill_shards(
        {item.object_id: item for item in listing.objects},
        partial(_render_finished, options=options),
        out,
        processes=options.processes,
        progress=progress,
    )
    report.left_out = listing.left_out
    return report


def relabel(listing: SourceListing, out: Path) -> int:
    """Bring the nouns, captions, tags and credits of the shards in ``out`` up to date; pictures stay.

    Returns:
        The number of rows.
    """
    pa = shard_schema.import_pyarrow()
    from pyarrow import parquet

    objects = {item.object_id: item for item in listing.objects}
    rows = 0
    for path in sorted(out.glob("objects-*.parquet")):
        table = parquet.read_table(path)
        old = table.select(["object_id", "colors", "variant"]).to_pylist()
        missing = [values["object_id"] for values in old if values["object_id"].split("#")[0] not in objects]
        if missing:
            raise InvalidInputError(f"{path} holds {missing[0]}, which the source does not")
        new = [_words(objects[v["object_id"].split("#")[0]], tuple(v["colors"]), v["variant"]) for v in old]
        for name in new[0]:
            index = table.schema.get_field_index(name)
            values = pa.array([row[name] for row in new], type=table.schema.field(name).type)
            table = table.set_column(index, table.schema.field(name), values)
        shard_schema.write_shard(table, path, force=True)
        rows += len(new)
    return rows


def _render_finished(item: SourceObject, options: RenderOptions) -> Finished:
    return Finished(render_object(item, options))


def render_object(item: SourceObject, options: RenderOptions) -> list[dict[str, Any]]:
    """The rows of one object: the original first, then its repainted versions.

    Raises:
        ValueError: the mesh cannot be read, is empty or is invisible.
    """
    renderer = MeshRenderer(item.load(), size=options.size, supersampling=options.supersampling)
    seed = stable_seed(item.object_id)
    views = view_set(options.views, seed)
    cameras = views.cameras()
    shared = _variant_views(views)
    pictures: list[bytes] = []
    normals: list[bytes] = []
    depths: list[bytes] = []
    kept: list[Samples] = []
    unlit: list[NDArray[np.uint8]] = []
    for index, samples in enumerate(renderer.render(cameras)):
        if index in shared and item.variants and options.recolor:
            kept.append(samples)
        if views.ring[index] == 0:
            unlit.append(samples.unlit_picture())
        pictures.append(shard_schema.encode_picture(samples.picture()))
        normals.append(shard_schema.encode_normal(samples.normal))
        depths.append(shard_schema.encode_depth(samples.depth))
    pixels = _visible_colors(unlit)
    words = color_words(color_shares(pixels))
    images = {"rgba": pictures, "normal": normals, "depth": depths}
    rows = [_row(item, options, views, words, "", images)]
    for word, lut in repaints(pixels, words, item.variants if options.recolor else 0, seed):
        images = {
            "rgba": [shard_schema.encode_picture(samples.picture(lut)) for samples in kept],
            "normal": [normals[i] for i in shared],
            "depth": [depths[i] for i in shared],
        }
        rows.append(_row(item, options, views.subset(shared), (word,), word, images))
    return rows


def _visible_colors(pictures: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """``[N, 3]`` sRGB 0..1 of some thousand pixels that are more opaque than not.

    Raises:
        ValueError: nothing is visible.
    """
    pixels = np.concatenate([picture.reshape(-1, 4) for picture in pictures])
    solid = pixels[pixels[:, 3] > 127]
    if len(solid) < 16:
        solid = pixels[pixels[:, 3] > 12]
    if len(solid) < 4:
        raise InvalidInputError("nothing of the object is visible")
    return solid[:: max(1, len(solid) // _PALETTE_PIXELS), :3] / 255.0


def _variant_views(views: ViewSet) -> list[int]:
    rings = [i for i, ring in enumerate(views.ring) if ring in _VARIANT_RINGS]
    return rings + [i for i, ring in enumerate(views.ring) if ring < 0][:_VARIANT_FREE]


def _row(
    item: SourceObject,
    options: RenderOptions,
    views: ViewSet,
    colors: tuple[ColorWord, ...],
    variant: str,
    images: dict[str, list[bytes]],
) -> dict[str, Any]:
    cameras = views.cameras()
    return {
        "object_id": item.object_id + (f"#{variant}" if variant else ""),
        **_words(item, colors, variant),
        "variant": variant,
        "size": options.size,
        "azimuths": list(views.azimuths),
        "elevations": list(views.elevations),
        "ring": list(views.ring),
        "camera_to_world": cameras.camera_to_world.ravel().tolist(),
        "intrinsics": cameras.intrinsics.ravel().tolist(),
        **images,
    }


def _words(item: SourceObject, colors: tuple[ColorWord, ...], variant: str) -> dict[str, Any]:
    """The columns that need no picture."""
    label = painted(item.label) if variant else as_seen(item.label, colors)
    return {
        "name": item.name,
        "noun": item.label.noun,
        "captions": list(captions(label, colors)),
        "colors": list(colors),
        "tags": list(item.tags),
        "split": shard_schema.split_of(item.name),
        "source": item.source,
        "license": item.license,
        "creator": item.creator,
    }
