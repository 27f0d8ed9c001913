"""Real renders of the data set's objects as the judges need them: what they show, and chosen pictures."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffsplat.data import schema

_SHARDS = "objects-*.parquet"
_COLUMNS = ["object_id", "name", "noun", "captions", "colors", "variant", "split", "ring"]


@dataclass(frozen=True)
class RenderedObject:
    """One row of the data set, without its pictures.

    Args:
        object_id: unique.
        name: key of the split; all versions and colours of a thing share it.
        noun: what it is.
        captions: its captions.
        colors: the colour words that are true of it.
        variant: the colour it was repainted in, empty for the original.
        split: ``train`` or ``test``.
        rings: group of four even azimuths of every view, -1 for none.
        shard: the file it is in.
        row: its place in that file.
    """

    object_id: str
    name: str
    noun: str
    captions: tuple[str, ...]
    colors: tuple[str, ...]
    variant: str
    split: str
    rings: tuple[int, ...]
    shard: Path
    row: int

    @property
    def order(self) -> str:
        """A repeatable shuffled sorting key."""
        return hashlib.sha256(self.object_id.encode()).hexdigest()

    def ring(self, number: int) -> list[int]:
        """Indices of the views of one ring."""
        return [index for index, ring in enumerate(self.rings) if ring == number]


@dataclass(frozen=True)
class Picture:
    """One view of a real object.

    Args:
        item: the object.
        view: index of the view.
        key: SHA-256 of the stored bytes.
        image: ``[3, H, W]`` sRGB 0..1 on white.
        alpha: ``[1, H, W]`` coverage 0..1.
    """

    item: RenderedObject
    view: int
    key: str
    image: Tensor
    alpha: Tensor


def list_objects(directory: Path) -> list[RenderedObject]:
    """All rows of the shards in ``directory`` and the folders below it, in the order of their identities.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no shards.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"no such folder of rendered objects: {directory}")
    schema.import_pyarrow()
    from pyarrow import parquet

    objects = []
    for shard in sorted(directory.rglob(_SHARDS)):
        for row, fields in enumerate(parquet.read_table(shard, columns=_COLUMNS).to_pylist()):
            objects.append(_rendered_object(fields, shard, row))
    if not objects:
        raise ValueError(f"{str(directory)!r} holds no {_SHARDS}, expected the output of `diffsplat data`")
    return sorted(objects, key=lambda item: item.object_id)


def _rendered_object(fields: dict[str, object], shard: Path, row: int) -> RenderedObject:
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    rings = values.pop("ring")
    return RenderedObject(**values, rings=rings, shard=shard, row=row)  # pyright: ignore[reportArgumentType]


def load_pictures(wanted: Sequence[tuple[RenderedObject, Sequence[int]]]) -> Iterator[Picture]:
    """Decode the chosen views of the chosen objects, shard by shard."""
    schema.import_pyarrow()
    from pyarrow import parquet

    for shard in sorted({item.shard for item, _ in wanted}):
        column = parquet.read_table(shard, columns=["rgba"]).column(0)
        for item, views in wanted:
            if item.shard == shard:
                pictures = column[item.row]
                for view in views:
                    yield _decoded(item, view, pictures[view].as_py())


def _decoded(item: RenderedObject, view: int, data: bytes) -> Picture:
    rgba = torch.from_numpy(schema.decode_picture(data).astype(np.float32) / 255).movedim(-1, 0)
    color, alpha = rgba[:3], rgba[3:]
    return Picture(item, view, hashlib.sha256(data).hexdigest(), color * alpha + (1 - alpha), alpha)
