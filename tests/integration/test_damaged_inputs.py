"""Damaged images, meshes, renderings, shards, poses and archives: a result, or one sentence that says what is wrong.

``-m slow`` tries 10 000 of each. Splat files have a test of their own, ``tests/unit/io/test_damaged_files.py``.
"""

import io
import random
import resource
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import trimesh
from PIL import Image

pytest.importorskip("pyarrow")
pytest.importorskip("OpenEXR")

import pyarrow as pa
from pyarrow import parquet

from diffsplat.data import shard_schema
from diffsplat.data.archive_unpacking import unpack
from diffsplat.data.gobjaverse.gobjaverse_files import BrokenViewError, StoredObject
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.errors import DiffSplatError
from diffsplat.evaluation.image_benchmark import read_pose
from diffsplat.geometry import orbit_cameras
from diffsplat.io.image_decoding import DecodingLimits
from diffsplat.io.image_files import read_image
from diffsplat.render.meshes.mesh_files import load_mesh
from diffsplat.render.meshes.mesh_renderer import MeshRenderer
from support.damaged_files import damaged
from support.gltf_files import GltfBuilder
from support.gobjaverse_objects import write_view
from support.icc_profiles import rgb_profile
from support.object_shards import object_cells

SECONDS = 30.0
"""The largest image that is allowed takes some."""
MOST_BYTES = 20 * DecodingLimits.max_pixels
PRIMARIES = ((0.436, 0.222, 0.014), (0.385, 0.717, 0.097), (0.143, 0.061, 0.714))
VIEW = "object/campos_512_v4/00000/00000"
CAMERA = orbit_cameras([30.0], 20.0, width=8, height=8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def images(_: Path, *, kind: str) -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (24, 20, 4), dtype=np.uint8)
    color, clear = Image.fromarray(noise[..., :3].copy()), Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112] = 6
    tagged = {"icc_profile": rgb_profile(PRIMARIES, 2.2), "exif": exif}
    match kind:
        case "PNG":
            wide = Image.fromarray(noise[..., :2].copy().view("<u2")[..., 0])
            palette = encoded(color.quantize(16), kind, transparency=3)
            return [encoded(clear, kind, **tagged), encoded(wide, kind), palette]
        case "JPEG":
            return [encoded(color, kind, progressive=True, **tagged), encoded(color.convert("CMYK"), kind)]
        case "TIFF":
            return [encoded(color, kind, compression=name) for name in ("raw", "tiff_lzw", "tiff_deflate")]
        case "WEBP" | "AVIF":
            return [encoded(clear, kind, **tagged), encoded(color, kind)]
        case _:
            return [encoded(color, kind)]


def meshes(_: Path, *, suffix: str) -> list[bytes]:
    box = trimesh.creation.box((0.4, 0.5, 0.6))
    square = GltfBuilder()
    square.textured_square(np.arange(48).reshape(4, 4, 3))
    match suffix:
        case ".glb":
            return [box.export(file_type="glb"), square.glb()]
        case ".gltf":
            return [square.gltf()]
        case ".stl":
            return [box.export(file_type="stl"), box.export(file_type="stl_ascii").encode()]
        case ".ply":
            box.visual.vertex_colors = np.arange(32).reshape(8, 4)
            return [box.export(file_type="ply", encoding=name) for name in ("binary", "ascii")]
        case _:
            return [box.export(file_type=suffix[1:]).encode()]


def shards(folder: Path) -> list[bytes]:
    table = pa.Table.from_pylist([object_cells()], schema=shard_schema.table_schema())
    parquet.write_table(table, folder / "whole.parquet", compression="none")
    return [(folder / "whole.parquet").read_bytes()]


def view_files(folder: Path, *, ending: str) -> list[bytes]:
    """One file of a rendered view; the others stay in the folder."""
    write_view(folder / "object", 0)
    return [(folder / f"{VIEW}{ending}").read_bytes()]


def tars(folder: Path, *, modes: tuple[str, ...] = ("w",)) -> list[bytes]:
    write_view(folder / "whole", 0)
    made = []
    for mode in modes:
        with tarfile.open(folder / "whole.tar", mode) as archive:
            archive.add(folder / "whole" / "campos_512_v4", "whole/campos_512_v4")
        made.append((folder / "whole.tar").read_bytes())
    return made


def archives(folder: Path) -> list[bytes]:
    plain, *packed = tars(folder, modes=("w", "w:gz", "w:xz", "w:bz2"))
    debian = b"!<arch>\n" + f"{'data.tar':<48}{len(plain):<10}`\n".encode() + plain
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.obj", "v 0 0 0\n" * 40)
    return [plain, *packed, debian, zipped.getvalue()]


def poses(_: Path) -> list[bytes]:
    made = []
    for kind in (np.float64, np.float32, np.int64):
        file = io.BytesIO()
        np.save(file, np.eye(3, 4, dtype=kind))
        made.append(file.getvalue())
    return made


def read_mesh(path: Path) -> None:
    renderer = MeshRenderer(load_mesh(path).normalized(), size=8)
    for samples in renderer.render(CAMERA):
        samples.image()


def read_shard(path: Path) -> None:
    dataset = ObjectDataset(path.parent, split="all")
    for index in range(len(dataset)):
        dataset.canonical(index)


def read_stored(path: Path) -> None:
    stored = StoredObject(path if path.suffix == ".tar" else path.parents[2])
    for number in stored.views:
        stored.read(number)


def read_archive(path: Path) -> None:
    folder = path.with_name("unpacked")
    shutil.rmtree(folder, ignore_errors=True)
    unpack(path, folder)


class Reader(NamedTuple):
    """Whole files of a kind, the name that damaged copies get, and what reads them."""

    whole: Callable[[Path], list[bytes]]
    name: str
    read: Callable[[Path], object]


IMAGE_KINDS = ("PNG", "JPEG", "TIFF", "WEBP", "AVIF", "GIF", "BMP", "TGA", "PPM", "DDS", "PCX", "SGI")
MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
READERS = {
    **{kind: Reader(partial(images, kind=kind), f"a.{kind.lower()}", read_image) for kind in IMAGE_KINDS},
    **{suffix: Reader(partial(meshes, suffix=suffix), f"a{suffix}", read_mesh) for suffix in MESH_SUFFIXES},
    **{
        ending: Reader(partial(view_files, ending=ending), f"{VIEW}{ending}", read_stored)
        for ending in (".json", ".png", "_nd.exr")
    },
    ".npy": Reader(poses, "a.npy", read_pose),
    ".tar": Reader(tars, "a.tar", read_stored),
    "archives": Reader(archives, "a.archive", read_archive),
    "shards": Reader(shards, "shards/objects-0.parquet", read_shard),
}


def check(reader: Reader, folder: Path, rounds: int, seed: int) -> None:
    whole = reader.whole(folder)
    path = folder / reader.name
    path.parent.mkdir(parents=True, exist_ok=True)
    for data in whole:
        path.write_bytes(data)
        reader.read(path)
    source, refused, lines = random.Random(f"{reader.name} {seed}"), 0, 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(rounds):
        path.write_bytes(damaged(whole[number % len(whole)], source))
        start = time.process_time()
        try:
            reader.read(path)
        except (DiffSplatError, BrokenViewError) as error:
            refused += 1
            lines += str(error).count("\n")
        assert time.process_time() - start < SECONDS
    assert refused
    assert lines == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_BYTES / 1024


@pytest.mark.parametrize("kind", READERS)
def test_damaged_inputs(tmp_path: Path, kind: str):
    check(READERS[kind], tmp_path, rounds=150, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_many_damaged_inputs(tmp_path: Path, kind: str):
    check(READERS[kind], tmp_path, rounds=10_000, seed=1)
