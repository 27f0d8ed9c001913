"""Reading shards of rendered objects as :class:`~diffsplat.core.Views`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from diffsplat.core import DEFAULT_RADIUS, Cameras, Views
from diffsplat.data import pixel_unpacking, shard_schema
from diffsplat.data.pixel_cache import DecodedShard, EncodedShard, Pixels, PixelStore, pixels_id
from diffsplat.data.released_view_composition import compose_released_views
from diffsplat.data.shard_reading import OPTIONAL_COLUMNS, explained_damage, read_columns
from diffsplat.errors import InvalidInputError, MissingFileError

Storage = Literal["decoded", "encoded"]
ViewComposition = Literal["exact", "released"]
"""Normals and points of the surface alone, on the ``center`` pixel grid; or as the released networks saw them, see
:func:`~diffsplat.data.released_view_composition.compose_released_views`."""

_IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp"))


@dataclass(frozen=True, kw_only=True)
class ObjectRow(shard_schema.ObjectInfo):
    """One object in one colour, without its pixels.

    Args:
        split: as in the shards.
        azimuths, elevations: ``[V]`` degrees.
        ring: ``[V]`` number of the ring of four that a view belongs to, -1 for none.
        cameras: ``[V]``, in the world of the mesh.
        shard, place: where the pixels are.
    """

    split: shard_schema.Split
    azimuths: tuple[float, ...]
    elevations: tuple[float, ...]
    ring: tuple[int, ...]
    cameras: Cameras
    shard: Path
    place: int

    def ring_views(self, ring: int) -> list[int]:
        """Indices of the views of a ring, in the order of their azimuths around the object."""
        views = [index for index, number in enumerate(self.ring) if number == ring]
        first = self.azimuths[views[0]] if views else 0.0
        return sorted(views, key=lambda index: round((self.azimuths[index] - first) % 360.0, 3))

    def turned_ring(self, random: np.random.Generator) -> list[int]:
        """Indices of the views of a random ring of four, in the order of their azimuths, from a random one on."""
        ring = self.ring_views(int(random.choice(self.rings)))
        start = int(random.integers(4))
        return ring[start:] + ring[:start]

    @property
    def rings(self) -> list[int]:
        """Numbers of the rings of exactly four views, ascending."""
        counts = Counter(number for number in self.ring if number >= 0)
        return sorted(number for number, count in counts.items() if count == 4)


class ObjectDataset(Dataset[Views]):
    """Objects of one or more folders of shards.

    An item is ``sample(index, seed)`` with the seed given here: the same index always gives the same views.
    """

    def __init__(
        self,
        folders: Path | str | Sequence[Path | str],
        *,
        split: Literal["train", "test", "all"] = "train",
        variants: bool = True,
        storage: Storage = "decoded",
        composition: ViewComposition = "exact",
        novel_views: int = 4,
        seed: int = 0,
    ) -> None:
        """Read the tables, not yet the pixels.

        Args:
            folders: where ``diffsplat data`` wrote shards.
            split: which objects.
            variants: also the repainted versions.
            storage: ``decoded`` keeps uncompressed pixels in memory-mapped files next to the shards, made at
                the first reading (110 kB of disk for a view of 128 pixels); ``encoded`` keeps the compressed
                bytes in memory and decodes them each time.
            composition: how views are made of the stored pixels.
            novel_views: how many views an item has in addition to the four of its ring.
            seed: of the items.

        Raises:
            FileNotFoundError: a folder holds no shard.
            ValueError: no object is left, or an option is unknown.
        """
        if split not in ("train", "test", "all") or storage not in ("decoded", "encoded") or novel_views < 0:
            raise InvalidInputError(
                f"split {split!r}, storage {storage!r}, novel_views {novel_views}: expected train, test or "
                "all; decoded or encoded; at least 0"
            )
        folders = [folders] if isinstance(folders, str | Path) else list(folders)
        rows = [row for folder in folders for row in read_rows(Path(folder))]
        self.rows = [row for row in rows if split in ("all", row.split) and (variants or not row.variant)]
        if not self.rows:
            raise InvalidInputError(f"no object of split {split!r} in {', '.join(str(f) for f in folders)}")
        self._storage: Storage = storage
        self._composition: ViewComposition = composition
        self._stores: dict[Path, PixelStore] = {}
        self._pixel_ids: dict[Path, str] = {}
        self._novel_views = novel_views
        self._seed = seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Views:
        return self.sample(index, self._seed)

    def noun_counts(self) -> Counter[str]:
        """How many different objects each noun has; repainted versions count once."""
        return Counter(row.noun for row in self.rows if not row.variant)

    def load_views(
        self, index: int, views: Sequence[int], *, size: int | None = None, prompt: str | None = None
    ) -> Views:
        """Some views of a row as a batch of one, in the world of the first of them.

        Args:
            index: of the row.
            views: of the row, in the order wanted.
            size: pixels per side, a divisor of the stored size; None keeps it.
            prompt: of the batch; the row's first caption when None.

        Raises:
            IndexError: there is no such row or view.
            ValueError: no view is asked for, or the size does not divide the stored one.
        """
        row = self.rows[index]
        chosen = list(views)
        if not chosen:
            raise InvalidInputError("got no views to load, expected at least one")
        if min(chosen) < 0 or max(chosen) >= len(row.ring):
            raise IndexError(f"views {chosen} of {row.object_id}, expected 0..{len(row.ring) - 1}")
        pixels = self._store(row.shard).read(row.place, chosen)
        caption = row.captions[0] if prompt is None else prompt
        match self._composition:
            case "exact":
                return to_views(pixels, row.cameras[chosen], caption, size=size)
            case "released":
                return released_views(pixels, row.cameras[chosen], caption, size=size)

    def sample(
        self, index: int, seed: int, *, novel_views: int | None = None, size: int | None = None
    ) -> Views:
        """Four views of one ring and some other views, all drawn from ``(seed, index)`` alone.

        The ring, which of its views comes first, the other views and the caption are random. A row
        with too few views gives those it has, repeated from the start.
        """
        row = self.rows[index]
        random = np.random.default_rng([seed, index])
        ring = row.turned_ring(random)
        others = random.permutation([v for v in range(len(row.ring)) if v not in ring]).tolist() or ring
        wanted = self._novel_views if novel_views is None else novel_views
        novel = [others[i % len(others)] for i in range(wanted)]
        prompt = str(random.choice(np.array(row.captions)))
        return self.load_views(index, ring + novel, size=size, prompt=prompt)

    def canonical(self, index: int, *, size: int | None = None, prompt: str | None = None) -> Views:
        """The four views that text generation makes: ring 0, the front first (azimuths 0, 90, 180, 270)."""
        return self.load_views(index, self.rows[index].ring_views(0), size=size, prompt=prompt)

    def pixels_key(self, index: int) -> str:
        """Identity of a row's images: another set of images has another key, whatever it is called."""
        row = self.rows[index]
        if row.shard not in self._pixel_ids:
            self._pixel_ids[row.shard] = pixels_id(row.shard)
        return f"{self._pixel_ids[row.shard]}/{row.place}"

    def prepare(self) -> None:
        """Open (and decode, where that was not done yet) every shard now, with a progress bar."""
        from tqdm import tqdm

        for shard in tqdm(sorted({row.shard for row in self.rows}), unit="shard", desc="decoding images"):
            self._store(shard)

    def _store(self, shard: Path) -> PixelStore:
        if shard not in self._stores:
            self._stores[shard] = DecodedShard(shard) if self._storage == "decoded" else EncodedShard(shard)
        return self._stores[shard]


def read_rows(folder: Path) -> Iterable[ObjectRow]:
    """All rows of a folder of shards, without pixels.

    Raises:
        FileNotFoundError: it holds no shard.
    """
    shards = _shards(folder)
    columns = [name for name in shard_schema.table_schema().names if name not in shard_schema.BLOB_COLUMNS]
    for shard in shards:
        for place, values in enumerate(read_columns(shard, columns).to_pylist()):
            with explained_damage(shard, f"row {place}"):
                yield _object_row(values, shard, place)


def require_geometry(folders: Sequence[Path]) -> None:
    """Refuse shards of images alone: networks that see surfaces are trained with normals and depths.

    Raises:
        ValueError: for the first shard that lacks them.
    """
    shard_schema.import_pyarrow()
    from pyarrow import parquet

    for shard in (shard for folder in folders for shard in _shards(folder)):
        present = parquet.read_schema(shard).names
        missing = [name for name in ("normal", "depth") if name not in present]
        if missing:
            raise InvalidInputError(
                f"{str(shard)!r} has no column {missing[0]!r}, expected objects with normals and depths: render "
                "them with 'diffsplat data render'"
            )


def _shards(folder: Path) -> list[Path]:
    shards = sorted(folder.glob("objects-*.parquet"))
    if not shards:
        images = any(path.suffix.lower() in _IMAGE_SUFFIXES for path in folder.glob("*"))
        found = "images but no objects-*.parquet" if images else "no objects-*.parquet"
        raise MissingFileError(f"{folder} holds {found}, expected the output of diffsplat data")
    return shards


def _object_row(values: dict[str, Any], shard: Path, place: int) -> ObjectRow:
    values = {
        name: value for name, value in values.items() if value is not None or name not in OPTIONAL_COLUMNS
    }
    _require_whole(values)
    size = values.pop("size")
    cameras = Cameras(
        camera_to_world=torch.tensor(values.pop("camera_to_world")).reshape(-1, 4, 4),
        intrinsics=torch.tensor(values.pop("intrinsics")).reshape(-1, 4),
        width=size,
        height=size,
    )
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return ObjectRow(**fields, cameras=cameras, shard=shard, place=place)


def _require_whole(values: dict[str, Any]) -> None:
    """Refuse a row with missing values, lists of different lengths, or no caption.

    Raises:
        ValueError: names the column.
    """
    for name, value in values.items():
        if value is None or (isinstance(value, list) and None in value):
            raise ValueError(f"its {name} has a missing value")
    views = len(values["ring"])
    counts = {"azimuths": views, "elevations": views, "camera_to_world": 16 * views, "intrinsics": 4 * views}
    for name, count in counts.items():
        if len(values[name]) != count:
            raise ValueError(f"its {name} has {len(values[name])} numbers, expected {count} of {views} views")
    if not values["captions"]:
        raise ValueError("it has no caption")


def to_views(pixels: Pixels, cameras: Cameras, prompt: str, *, size: int | None = None) -> Views:
    """Stored pixels of ``V`` views to :class:`Views` with one object, in the world of the first view.

    Args:
        pixels: as stored.
        cameras: ``[V]`` in the world of the mesh.
        prompt: caption.
        size: pixels per side, a divisor of the stored size.

    Raises:
        ValueError: the size does not divide the stored one.
    """
    turned = cameras.relative_to_first(DEFAULT_RADIUS)
    scale = DEFAULT_RADIUS / float(torch.linalg.vector_norm(cameras.centers[0]))
    views, height, width = pixels.depth.shape
    out = pixel_unpacking.empty(views, height, width)
    pixel_unpacking.unpack(
        (pixels.rgba, pixels.normal, pixels.depth),
        cameras.first_view_rotation().numpy(),
        turned.camera_to_world.numpy(),
        turned.intrinsics.numpy(),
        (shard_schema.DEPTH_NEAR * scale, shard_schema.DEPTH_FAR * scale),
        out,
    )
    tensors = [torch.from_numpy(array) for array in out]
    if size is not None and size != width:
        turned = turned.resized(size, size)
        tensors = _shrunk(tensors, turned, size)
    image, mask, normal, coord, depth = tensors
    batched = Cameras(turned.camera_to_world[None], turned.intrinsics[None], turned.width, turned.height)
    return Views(
        image[None], mask[None, :, None], normal[None], coord[None], depth[None, :, None], batched, (prompt,)
    )


def released_views(pixels: Pixels, cameras: Cameras, prompt: str, *, size: int | None = None) -> Views:
    """Stored pixels of ``V`` views as the released networks would have seen them; arguments of :func:`to_views`."""
    rgba = torch.from_numpy(pixels.rgba).movedim(-1, 1) / 255.0
    steps = torch.from_numpy(pixels.depth.astype(np.float32))[:, None]
    span = shard_schema.DEPTH_FAR - shard_schema.DEPTH_NEAR
    depth = torch.where(steps > 0, shard_schema.DEPTH_NEAR + (steps - 1) * (span / 65534), 0.0)
    normal = torch.from_numpy(pixels.normal).movedim(-1, 1) / 127.5 - 1
    unit = torch.where(steps > 0, functional.normalize(normal, dim=1), 0.0)
    stored = pixels.depth.shape[-1]
    _require_divisor(size or stored, stored)
    return compose_released_views(rgba, unit, depth, cameras, size=size or stored, prompt=prompt)


def _require_divisor(size: int, stored: int) -> None:
    if size < 1 or stored % size:
        raise InvalidInputError(f"cannot bring {stored} pixels to {size}, expected a divisor of {stored}")


def _shrunk(tensors: list[Tensor], cameras: Cameras, size: int) -> list[Tensor]:
    """Averages over blocks; depth and normals over the hit pixels of a block only, points from the depth."""
    image, mask, normal, _, depth = tensors
    stored = depth.shape[-1]
    _require_divisor(size, stored)
    block = stored // size
    hit = (depth > 0).float()[:, None]
    share = functional.avg_pool2d(hit, block)
    some = share > 0
    depth = functional.avg_pool2d(depth[:, None] * hit, block) / share.clamp_min(1e-9)
    mean = functional.avg_pool2d((normal * 2 - 1) * hit, block)
    mean = mean * (mean * mean).sum(dim=-3, keepdim=True).clamp_min(1e-12).rsqrt()
    points = cameras.unproject(depth)
    return [
        functional.avg_pool2d(image, block),
        functional.avg_pool2d(mask, block),
        torch.where(some, mean * 0.5 + 0.5, 1.0),
        torch.where(some, points * 0.5 + 0.5, 1.0),
        depth[:, 0],
    ]
