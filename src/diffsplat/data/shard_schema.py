"""The table of rendered objects: one row per object and colour, images as encoded bytes.

Columns (V views of an object):

- ``object_id``: unique; ``source/path`` and, for a repainted object, ``#word``.
- ``name``: key of the split; all versions and colours of an object share it.
- ``noun``, ``captions``, ``colors``, ``tags``: what it is and how it may be called.
- ``variant``: the colour it was repainted in, empty for the original.
- ``split``: ``train`` or ``test``, a hash of ``name``.
- ``source``, ``license``, ``license_basis``, ``creator``: where it comes from; the basis is how the licence is known.
- ``size``: pixels per side. ``azimuths``, ``elevations``: degrees ``[V]``.
- ``ring``: ``[V]`` number of the group of four, -1 for free views.
- ``camera_to_world``: ``[V * 16]`` row by row, OpenCV. ``intrinsics``: ``[V * 4]`` fx fy cx cy / image size.
- ``rgba``: ``[V]`` PNG, 8 bit, sRGB with straight alpha.
- ``normal``: ``[V]`` PNG, 8 bit, world normal ``n * 127.5 + 127.5``.
- ``depth``: ``[V]`` PNG, 16 bit grey; 0 where nothing is, else
  ``1 + 65534 * (z - DEPTH_NEAR) / (DEPTH_FAR - DEPTH_NEAR)``.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffsplat.core.stable_hash import stable_hash
from diffsplat.errors import InvalidInputError, optional_package
from diffsplat.io.file_access import atomic_path

if TYPE_CHECKING:
    import pyarrow

BLOB_COLUMNS = ("rgba", "normal", "depth")
DEPTH_NEAR = 0.5
DEPTH_FAR = 2.5
HELD_OUT_PERCENT = 10
Split = Literal["train", "test"]
VERSION = "1"


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """What is known of an object besides its views; see the columns of the same names."""

    object_id: str
    name: str
    noun: str
    captions: tuple[str, ...]
    colors: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    variant: str = ""
    source: str
    license: str
    license_basis: str = ""
    creator: str

    def columns(self, split: Split | None = None) -> dict[str, Any]:
        """Columns of a row; the split is that of the name by default."""
        return {**vars(self), "split": split or split_of(self.name)}


def import_pyarrow() -> Any:
    """pyarrow, or one sentence that says how to get it."""
    with optional_package("a table of objects", "pyarrow", "train"):
        import pyarrow
        import pyarrow.parquet
    return pyarrow


def import_compute() -> Any:
    """pyarrow's functions of columns, which its type information lacks."""
    import_pyarrow()
    from pyarrow import compute

    return compute


def table_schema() -> pyarrow.Schema:
    """The Arrow schema of a shard."""
    pa = import_pyarrow()
    text, texts = pa.string(), pa.list_(pa.string())
    floats, blobs = pa.list_(pa.float32()), pa.list_(pa.binary())
    columns = (
        (text, ("object_id", "name", "noun")),
        (texts, ("captions", "colors", "tags")),
        (text, ("variant", "split", "source", "license", "license_basis", "creator")),
        (pa.int32(), ("size",)),
        (floats, ("azimuths", "elevations")),
        (pa.list_(pa.int32()), ("ring",)),
        (floats, ("camera_to_world", "intrinsics")),
        (blobs, BLOB_COLUMNS),
    )
    metadata = {"diffsplat_version": VERSION, "depth_near": str(DEPTH_NEAR), "depth_far": str(DEPTH_FAR)}
    return pa.schema([(name, kind) for kind, names in columns for name in names], metadata=metadata)


def pixels_id(table: pyarrow.Table) -> str:
    """A fingerprint of the images of a shard, whatever its labels."""
    digest = hashlib.sha256()
    for cell in table.column("rgba"):
        for blob in cell:
            digest.update(hashlib.sha256(blob.as_buffer()).digest())
    return digest.hexdigest()[:16]


def write_shard(table: pyarrow.Table, path: Path, *, force: bool = False) -> None:
    """Write a table of rows whole or not at all, with :func:`pixels_id` in its metadata as ``pixels``.

    Every row is a row group, so that one object is read without its neighbours, from disk or over the network.
    """
    pa = import_pyarrow()
    metadata = {**(table.schema.metadata or {}), b"pixels": pixels_id(table).encode("ascii")}
    with atomic_path(path, force=force) as temporary:
        pa.parquet.write_table(
            table.replace_schema_metadata(metadata),
            temporary,
            compression="none",
            row_group_size=1,
            use_dictionary=False,
            write_statistics=False,
        )


def split_of(name: str) -> Split:
    """``test`` for the tenth of the names whose SHA-256 says so, ``train`` for the others."""
    return "test" if stable_hash(name) % 100 < HELD_OUT_PERCENT else "train"


def encode_image(pixels: NDArray[np.uint8]) -> bytes:
    """``[H, W, C]`` bytes as a PNG made for speed."""
    return _png(Image.fromarray(pixels))


def encode_normal(normal: NDArray[np.floating]) -> bytes:
    """World normals ``[H, W, 3]`` as an 8 bit PNG; zero vectors become middle grey."""
    return encode_image(normal_bytes(normal))


def normal_bytes(normal: NDArray[np.floating]) -> NDArray[np.uint8]:
    """World normals ``[..., 3]`` as they are stored."""
    return np.clip(np.rint(normal * 127.5 + 127.5), 0, 255).astype(np.uint8)


def encode_depth(depth: NDArray[np.floating]) -> bytes:
    """Camera z ``[H, W]``, 0 outside the object, as a 16 bit PNG; see :func:`depth_steps`."""
    return _png(Image.fromarray(depth_steps(depth)))


def depth_steps(depth: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Camera z ``[...]``, 0 outside the object, as it is stored.

    Raises:
        ValueError: a depth outside ``DEPTH_NEAR``..``DEPTH_FAR``.
    """
    inside = depth > 0
    if inside.any() and not (depth[inside].min() >= DEPTH_NEAR and depth[inside].max() <= DEPTH_FAR):
        low, high = float(depth[inside].min()), float(depth[inside].max())
        raise InvalidInputError(f"depth spans {low:.3f}..{high:.3f}, expected {DEPTH_NEAR}..{DEPTH_FAR}")
    steps = 1 + np.rint(65534 * (depth - DEPTH_NEAR) / (DEPTH_FAR - DEPTH_NEAR))
    return np.where(inside, steps, 0).astype(np.uint16)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
