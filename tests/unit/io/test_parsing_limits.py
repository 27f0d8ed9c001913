"""Small files that unpack to large ones are refused before they do."""

import gzip
import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from PIL import Image

from diffsplat.errors import InvalidInputError
from diffsplat.io.gaussian_arrays import to_splats
from diffsplat.io.splat_formats import SPLAT_FORMATS, read_splats, write_splats
from diffsplat.io.splat_suffixes import WRITABLE_SUFFIXES
from support import stored_files
from support.splat_sets import lattice_splats

MEGA = 1 << 20


def gzip_bomb() -> bytes:
    count = 4 * MEGA
    header = struct.pack("<IIIBBBB", 0x5053474E, 3, count, 0, 12, 0, 0)
    return gzip.compress(header + bytes(20 * count), 9)


def zstandard_bomb(honest: bool) -> bytes:
    count = 4 * MEGA
    sizes = [9 * count, count, 3 * count, 3 * count, 4 * count]
    packed = [zstandard.ZstdCompressor().compress(bytes(size)) for size in sizes]
    promised = count if honest else 10
    header = struct.pack("<IIIBBBBI12x", 0x5053474E, 4, promised, 0, 12, 0, 5, 32)
    widths = (9, 1, 3, 3, 4)
    table = b"".join(
        struct.pack("<QQ", len(small), promised * width) for small, width in zip(packed, widths, strict=True)
    )
    return header + table + b"".join(packed)


def zip_bomb() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as bundle:
        bundle.writestr("meta.json", bytes(80 * MEGA))
    return archive.getvalue()


def lying_zip() -> bytes:
    """Its directory promises ten bytes of what inflates to 80 million."""
    data = zip_bomb()
    return data.replace(struct.pack("<I", 80 * MEGA), struct.pack("<I", 10))


def texture_bomb() -> bytes:
    target = io.BytesIO()
    Image.new("RGBA", (8000, 8000)).save(target, format="WEBP", lossless=True)
    meta = {
        "version": 2,
        "count": 8000 * 8000,
        "means": {"mins": [0, 0, 0], "maxs": [1, 1, 1], "files": ["a.webp", "a.webp"]},
        "scales": {"codebook": [0.0] * 256, "files": ["a.webp"]},
        "quats": {"files": ["a.webp"]},
        "sh0": {"codebook": [0.0] * 256, "files": ["a.webp"]},
    }
    return stored_files.sog(meta, {"a.webp": target.getvalue()})


def json_bomb() -> bytes:
    return b'{"a":' + b"[" * 3_000_000


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip": (".spz", gzip_bomb),
    "zstandard": (".spz", lambda: zstandard_bomb(honest=True)),
    "zstandard that lies": (".spz", lambda: zstandard_bomb(honest=False)),
    "zip": (".sog", zip_bomb),
    "zip that lies": (".sog", lying_zip),
    "texture": (".sog", texture_bomb),
    "json": (".gltf", json_bomb),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(tmp_path: Path, name: str):
    suffix, build = BOMBS[name]
    data = build()
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(InvalidInputError, match="is not a readable splat file"):
        read_splats(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * len(data) + 4 * MEGA


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
def test_honest_files_take_at_most_ten_times_their_size(tmp_path: Path, suffix: str):
    count = 40_000
    write_splats(lattice_splats(count), tmp_path / f"a{suffix}")
    data = (tmp_path / f"a{suffix}").read_bytes()
    entry = SPLAT_FORMATS[suffix]
    tracemalloc.start()
    splats = to_splats(entry.decode(data), entry.up)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert splats.count == count
    assert peak + len(data) < 10 * len(data)
