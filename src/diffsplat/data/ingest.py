"""Rendering whole sources into shards: many processes, resumable, broken meshes reported."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffsplat.data import schema
from diffsplat.data.captions import captions
from diffsplat.data.colors import (
    COLOR_WORDS,
    ColorWord,
    Palette,
    color_shares,
    color_words,
    palette,
    repaint_lut,
)
from diffsplat.data.mesh_render import NO_LUT, MeshRenderer, Samples
from diffsplat.data.sources import SourceListing, SourceObject
from diffsplat.data.view_sets import ViewSet, ViewSetName, view_set

SHARD_OBJECTS = 40
_VARIANT_RINGS = (0, 1)
_VARIANT_FREE = 2
_FLAT_SPREAD = 0.13
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


@dataclass
class IngestReport:
    """What became of a source."""

    rendered: int = 0
    rows: int = 0
    resumed: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)
    left_out: tuple[str, ...] = ()


def ingest(
    listing: SourceListing, out: Path, options: RenderOptions, *, progress: bool = True
) -> IngestReport:
    """Render every object of ``listing`` that ``out`` does not hold yet, in an order mixed by a hash.

    Shards appear whole or not at all; after an interruption the same call goes on with what is missing.

    Raises:
        ValueError: an option is out of range, or ``out`` is a file.
    """
    if options.size < 8 or options.supersampling < 1 or options.processes < 0:
        raise ValueError(
            f"size {options.size}, supersampling {options.supersampling}, processes {options.processes}: "
            "expected at least 8, 1 and 0"
        )
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, expected a folder to write to")
    out.mkdir(parents=True, exist_ok=True)
    done = finished_objects(out)
    todo = sorted((o for o in listing.objects if o.object_id not in done), key=lambda o: seed_of(o.object_id))
    report = IngestReport(resumed=len(listing.objects) - len(todo), left_out=listing.left_out)
    writer = _ShardWriter(out)
    try:
        for result in _with_bar(_results(todo, options), len(todo), progress):
            if isinstance(result, Broken):
                report.broken.append((result.object_id, result.reason))
                continue
            report.rendered += 1
            report.rows += len(result)
            writer.add(result)
    finally:
        writer.flush()
    return report


def finished_objects(out: Path) -> set[str]:
    """Identities of the original objects in the shards of ``out``."""
    schema.import_pyarrow()
    from pyarrow import parquet

    done: set[str] = set()
    for path in sorted(out.glob("objects-*.parquet")):
        done.update(parquet.read_table(path, columns=["object_id"]).column(0).to_pylist())
    return done


def relabel(listing: SourceListing, out: Path) -> int:
    """Bring the nouns, captions, tags and credits of the shards in ``out`` up to date; pictures stay.

    Returns:
        The number of rows.
    """
    pa = schema.import_pyarrow()
    from pyarrow import parquet

    objects = {item.object_id: item for item in listing.objects}
    rows = 0
    for path in sorted(out.glob("objects-*.parquet")):
        table = parquet.read_table(path)
        old = table.select(["object_id", "colors", "variant"]).to_pylist()
        missing = [values["object_id"] for values in old if values["object_id"].split("#")[0] not in objects]
        if missing:
            raise ValueError(f"{path} holds {missing[0]}, which the source does not")
        new = [_words(objects[v["object_id"].split("#")[0]], tuple(v["colors"])) for v in old]
        for name in new[0]:
            index = table.schema.get_field_index(name)
            values = pa.array([row[name] for row in new], type=table.schema.field(name).type)
            table = table.set_column(index, table.schema.field(name), values)
        schema.write_shard(table, path, force=True)
        rows += len(new)
    return rows


@dataclass(frozen=True)
class Broken:
    """An object that could not be rendered."""

    object_id: str
    reason: str


class _ShardWriter:
    def __init__(self, out: Path) -> None:
        self._out = out
        numbers = [int(p.stem.split("-")[1]) for p in out.glob("objects-*.parquet")]
        self._next = max(numbers, default=-1) + 1
        self._rows: list[dict[str, Any]] = []
        self._objects = 0

    def add(self, rows: list[dict[str, Any]]) -> None:
        self._rows += rows
        self._objects += 1
        if self._objects >= SHARD_OBJECTS:
            self.flush()

    def flush(self) -> None:
        if not self._rows:
            return
        pa = schema.import_pyarrow()
        table = pa.Table.from_pylist(self._rows, schema=schema.table_schema())
        schema.write_shard(table, self._out / f"objects-{self._next:05d}.parquet")
        self._next += 1
        self._rows, self._objects = [], 0


def _with_bar(results: Iterator[Any], total: int, progress: bool) -> Iterator[Any]:
    from tqdm import tqdm

    return iter(tqdm(results, total=total, unit="object", disable=not progress))


def _results(todo: list[SourceObject], options: RenderOptions) -> Iterator[list[dict[str, Any]] | Broken]:
    processes = options.processes or os.cpu_count() or 1
    jobs = [(item, options) for item in todo]
    if processes == 1 or len(todo) < 4:
        yield from map(_render_job, jobs)
        return
    executor = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_ignore_interrupts
    )
    try:
        yield from executor.map(_render_job, jobs)
    except BrokenProcessPool as error:
        raise ValueError(
            "a rendering process was killed, probably for lack of memory; run again with fewer processes"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C reaches all processes; only the first one answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _render_job(job: tuple[SourceObject, RenderOptions]) -> list[dict[str, Any]] | Broken:
    item, options = job
    try:
        return render_object(item, options)
    except (ValueError, OSError, MemoryError) as error:
        return Broken(item.object_id, str(error))


def seed_of(text: str) -> int:
    """A repeatable 32 bit number from a text."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:4], "big")


def render_object(item: SourceObject, options: RenderOptions) -> list[dict[str, Any]]:
    """The rows of one object: the original first, then its repainted versions.

    Raises:
        ValueError: the mesh cannot be read, is empty or is invisible.
    """
    renderer = MeshRenderer(item.load(), size=options.size, supersampling=options.supersampling)
    seed = seed_of(item.object_id)
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
        pictures.append(schema.encode_picture(samples.picture()))
        normals.append(schema.encode_normal(samples.normal))
        depths.append(schema.encode_depth(samples.depth))
    pixels = _visible_colors(unlit)
    words = color_words(color_shares(pixels))
    images = {"rgba": pictures, "normal": normals, "depth": depths}
    rows = [_row(item, options, views, words, "", images)]
    for word, lut in _repaints(item, options, pixels, words, seed):
        images = {
            "rgba": [schema.encode_picture(samples.picture(lut)) for samples in kept],
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
        raise ValueError("nothing of the object is visible")
    return solid[:: max(1, len(solid) // _PALETTE_PIXELS), :3] / 255.0


def _variant_views(views: ViewSet) -> list[int]:
    rings = [i for i, ring in enumerate(views.ring) if ring in _VARIANT_RINGS]
    return rings + [i for i, ring in enumerate(views.ring) if ring < 0][:_VARIANT_FREE]


def _repaints(
    item: SourceObject,
    options: RenderOptions,
    pixels: NDArray[np.float64],
    words: tuple[ColorWord, ...],
    seed: int,
) -> Iterator[tuple[ColorWord, NDArray[np.floating]]]:
    """Colour cubes for the words in which the object can truly be repainted."""
    if not item.variants or not options.recolor:
        return
    colors = palette(pixels)
    if not _is_flat(colors):
        return
    made = 0
    for word in np.random.default_rng([seed, 1]).permutation(np.array(COLOR_WORDS)).tolist():
        if word in words or made == item.variants:
            continue
        lut = repaint_lut(colors, word, seed)
        if color_words(color_shares(apply_lut(lut, pixels))) == (word,):
            made += 1
            yield word, lut


def _is_flat(colors: Palette) -> bool:
    """Whether the colours that would be repainted vary little in lightness."""
    return float((colors.shares * colors.spread).sum()) < _FLAT_SPREAD


def apply_lut(lut: NDArray[np.floating], rgb: NDArray[np.floating]) -> NDArray[np.floating]:
    """Colours ``[N, 3]`` through a cube ``[S, S, S, 3]`` by trilinear interpolation."""
    if lut is NO_LUT:
        return rgb
    place = np.clip(rgb, 0.0, 1.0) * (len(lut) - 1)
    low = np.minimum(place.astype(np.int64), len(lut) - 2)
    part = place - low
    total = np.zeros((len(rgb), 3))
    for corner in np.ndindex(2, 2, 2):
        offset = np.array(corner)
        share = np.where(offset, part, 1 - part).prod(axis=1, keepdims=True)
        total += share * lut[tuple((low + offset).T)]
    return total


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
        **_words(item, colors),
        "variant": variant,
        "size": options.size,
        "azimuths": list(views.azimuths),
        "elevations": list(views.elevations),
        "ring": list(views.ring),
        "camera_to_world": cameras.camera_to_world.ravel().tolist(),
        "intrinsics": cameras.intrinsics.ravel().tolist(),
        **images,
    }


def _words(item: SourceObject, colors: tuple[ColorWord, ...]) -> dict[str, Any]:
    """The columns that need no picture."""
    return {
        "name": item.name,
        "noun": item.label.noun,
        "captions": list(captions(item.label, colors)),
        "colors": list(colors),
        "tags": list(item.tags),
        "split": schema.split_of(item.name),
        "source": item.source,
        "license": item.license,
        "creator": item.creator,
    }
