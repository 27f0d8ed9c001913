"""Reading shards of rendered objects as :class:`~diffsplat.core.Views`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from diffsplat.core import DEFAULT_RADIUS, Cameras, Views
from diffsplat.data import pixel_unpacking, shard_schema
from diffsplat.data.object_id_lists import named
from diffsplat.data.object_table import ObjectTable
from diffsplat.data.paper_training_views import on_white, paper_training_views
from diffsplat.data.row_cache import RowCache
from diffsplat.data.shard_reading import Pixels, decode_row, read_images
from diffsplat.data.shard_row import ObjectRow
from diffsplat.errors import InvalidInputError, require

ViewComposition = Literal["exact", "released"]
"""Normals and points of the surface alone, on the ``center`` pixel grid; or as the released networks saw them, see
:func:`~diffsplat.data.paper_training_views.paper_training_views`."""


class ObjectDataset:
    """Objects of one or more folders of shards."""

    def __init__(
        self,
        folders: Path | str | Sequence[Path | str],
        *,
        split: Literal["train", "test", "all"] = "train",
        variants: bool = True,
        ids: Collection[str] | None = None,
        cache_gb: float = 0.0,
        composition: ViewComposition = "exact",
    ) -> None:
        """Map the table of rows; neither rows nor pixels are read.

        Args:
            folders: where ``diffsplat data`` wrote shards: paths, or addresses of fsspec.
            split: which objects.
            variants: also the repainted versions.
            ids: only these objects, see :func:`~diffsplat.data.object_id_lists.named`; all by default.
            cache_gb: how much of what lies at addresses may be kept on disk, see
                :class:`~diffsplat.data.row_cache.RowCache`.
            composition: how views are made of the stored pixels.

        Raises:
            FileNotFoundError: a folder holds no shard.
            ValueError: no object is left, an option is unknown, or a shard is damaged.
        """
        require(split in ("train", "test", "all"), "split", repr(split), "train, test or all")
        folders = [folders] if isinstance(folders, str | Path) else list(folders)
        rows = ObjectTable(folders)
        if ids is not None:
            rows = rows.select(named(rows.column("object_id"), ids))
        if split != "all":
            rows = rows.select(rows.where("split", split))
        if not variants:
            rows = rows.select(rows.where("variant", ""))
        if not len(rows):
            among = "" if ids is None else f" among the {len(ids)} requested"
            places = ", ".join(str(folder) for folder in folders)
            raise InvalidInputError(f"no object of split {split!r} in {places}{among}")
        self.rows = rows
        self._cache = RowCache.within(rows.shards(), cache_gb)
        self.composition: ViewComposition = composition

    def __len__(self) -> int:
        return len(self.rows)

    def noun_counts(self) -> Counter[str]:
        """How many different objects each noun has; repainted versions count once."""
        originals = self.rows.select(self.rows.where("variant", ""))
        return Counter(originals.column("noun").to_pylist())

    def load_views(self, index: int, views: Sequence[int], *, size: int | None = None) -> Views:
        """Some views of a row as a batch of one, in the world of the first of them, with the row's first caption.

        Args:
            index: of the row.
            views: of the row, in the order wanted.
            size: pixels per side, a divisor of the stored size; None keeps it.

        Raises:
            IndexError: there is no such row or view.
            ValueError: no view is asked for, or the size does not divide the stored one.
        """
        row = self.rows[index]
        return self._views(row, views, size, row.captions[0])

    def load_images(self, index: int, views: Sequence[int]) -> Tensor:
        """``[V, 3, H, W]`` images of some views of a row, 0..1 on white, of shards without normals and depths too.

        They are those of :meth:`load_views` in the exact composition, and take a fraction of the time.

        Raises:
            IndexError: there is no such row or view.
            ValueError: no view is asked for, or the shard is damaged.
        """
        stored = self._decoded(self.rows[index], views, ("rgba",))["rgba"]
        rgba = torch.from_numpy(stored).movedim(-1, 1).double() / 255
        return on_white(rgba[:, :3], rgba[:, 3:]).clamp_max(1).float().contiguous()

    def _views(self, row: ObjectRow, views: Sequence[int], size: int | None, caption: str) -> Views:
        pixels = Pixels(**self._decoded(row, views, shard_schema.BLOB_COLUMNS))
        cameras = row.cameras[list(views)]
        match self.composition:
            case "exact":
                return to_views(pixels, cameras, caption, size=size)
            case "released":
                return released_views(pixels, cameras, caption, size=size)

    def _decoded(
        self, row: ObjectRow, views: Sequence[int], columns: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        chosen = list(views)
        if not chosen:
            raise InvalidInputError("got no views to load, expected at least one")
        if min(chosen) < 0 or max(chosen) >= len(row.ring):
            raise IndexError(f"views {chosen} of {row.object_id}, expected 0..{len(row.ring) - 1}")
        images = self._cache.row(row.shard, row.place, lambda: read_images(row.shard, row.place))
        return decode_row(images, row.shard, row.place, row.cameras.width, chosen, columns)

    def sample(
        self,
        index: int,
        seed: int,
        *,
        novel_views: int = 4,
        size: int | None = None,
        ring: Sequence[int] | None = None,
    ) -> Views:
        """Four views of one ring and some other views, all drawn from ``(seed, index)`` alone.

        The ring, which of its views comes first, the other views and the caption are random. A row
        with too few views gives those it has, repeated from the start.

        Args:
            index: of the row.
            seed: of what is drawn.
            novel_views: how many other views.
            size: pixels per side, see :meth:`load_views`.
            ring: its views, in order; by default it is drawn.
        """
        row = self.rows[index]
        random = np.random.default_rng([seed, index])
        ring = row.turned_ring(random) if ring is None else list(ring)
        others = random.permutation([v for v in range(len(row.ring)) if v not in ring]).tolist() or ring
        novel = [others[i % len(others)] for i in range(novel_views)]
        prompt = str(random.choice(np.array(row.captions)))
        return self._views(row, ring + novel, size, prompt)

    def canonical(self, index: int, *, size: int | None = None) -> Views:
        """The four views that text generation makes: ring 0, the front first (azimuths 0, 90, 180, 270)."""
        return self.load_views(index, self.rows[index].ring_views(0), size=size)

    def pixels_key(self, index: int) -> str:
        """Identity of a row's images: another set of images has another key, whatever it is called."""
        row = self.rows[index]
        return f"{row.pixels}/{row.place}"


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
    return paper_training_views(rgba, unit, depth, cameras, size=size or stored, prompt=prompt)


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
