"""Files of generated objects for download: splats in every format, a mesh, an image, turntable videos."""

import asyncio
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from diffsplat.io.file_access import STORAGE_ERRORS, explained_os_errors
from diffsplat.io.splat_formats import SPLAT_FORMATS
from diffsplat.io.splat_suffixes import MESH_SUFFIX, WRITABLE_SUFFIXES
from diffsplat.meshing.surface_extraction import has_meshing
from diffsplat.pipelines.object_writing import write_object
from diffsplat.pipelines.pipeline_output import GeneratedObject
from diffsplat.web.downloadable_viewer_page import viewer_page

_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class FileKind:
    """A kind of file that an object can be downloaded as.

    Args:
        suffix: of its name.
        description: what it is.
        media_type: as HTTP names it.
        rendered: whether the object is rendered for it, which takes a moment.
    """

    suffix: str
    description: str
    media_type: str
    rendered: bool = False


_MESH = FileKind(MESH_SUFFIX, "closed triangle mesh with a texture", "model/gltf-binary", rendered=True)

FILE_KINDS: dict[str, FileKind] = {
    kind.suffix: kind
    for kind in (
        *(
            FileKind(
                suffix,
                SPLAT_FORMATS[suffix].description,
                "model/gltf-binary" if suffix == ".glb" else "application/octet-stream",
            )
            for suffix in WRITABLE_SUFFIXES
        ),
        *([_MESH] if has_meshing() else []),
        FileKind(".png", "image of the first view", "image/png", rendered=True),
        FileKind(".mp4", "turntable video", "video/mp4", rendered=True),
        FileKind(".gif", "turntable animation", "image/gif", rendered=True),
        FileKind(".webp", "turntable animation", "image/webp", rendered=True),
        FileKind(".html", "page with a viewer, to share", "text/html"),
    )
}
"""Every kind of file, by suffix; a mesh only where its packages are installed."""


class FileMaker:
    """Makes files in threads of its own, one of splats and one rendered at a time; keeps some rendered ones.

    Nothing that a client sends becomes a path: a file is made in a new folder under a name from the table, and
    the folder is gone before the first byte is sent.

    Args:
        exists: whether a job is still there; files of others are dropped.
        kept_bytes: memory for rendered files.
    """

    def __init__(self, exists: Callable[[str], bool], kept_bytes: int = 64_000_000) -> None:
        self._exists = exists
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[tuple[str, int, str], bytes] = OrderedDict()
        self._being_made: dict[tuple[str, int, str], asyncio.Future[bytes]] = {}
        self._rendering = ThreadPoolExecutor(1, thread_name_prefix="rendering")
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="writing")

    def close(self) -> None:
        """Drop what waits; what is being made ends first."""
        for executor in (self._rendering, self._writing):
            executor.shutdown(wait=True, cancel_futures=True)

    async def splats(self, item: GeneratedObject, kind: FileKind) -> tuple[Iterator[bytes], int]:
        """A file's bytes, piece by piece, and their number."""
        loop = asyncio.get_running_loop()
        file, size = await loop.run_in_executor(self._writing, _made, item, kind)
        return _pieces(file), size

    async def rendered(self, job: str, number: int, item: GeneratedObject, kind: FileKind) -> bytes:
        """A rendered file; requests that come while it is made share it."""
        key = (job, number, kind.suffix)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if key not in self._being_made:
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(self._rendering, _bytes_of, item, kind)
            future.add_done_callback(lambda done: self._keep(key, done))
            self._being_made[key] = future
        return await asyncio.shield(self._being_made[key])

    def _keep(self, key: tuple[str, int, str], done: asyncio.Future[bytes]) -> None:
        del self._being_made[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._kept[key] = done.result()
        for stale in [kept for kept in self._kept if not self._exists(kept[0])]:
            del self._kept[stale]
        while sum(map(len, self._kept.values())) > self._kept_bytes:
            self._kept.popitem(last=False)


def _made(item: GeneratedObject, kind: FileKind) -> tuple[IO[bytes], int]:
    """An open file that has no name any more, and its size."""
    with (
        explained_os_errors("cannot make the file", STORAGE_ERRORS),
        tempfile.TemporaryDirectory(prefix="diffsplat-") as folder,
    ):
        path = Path(folder) / f"object{kind.suffix}"
        if kind.suffix == ".html":
            _write_page(item, path)
        else:
            write_object(item, path, views=1)
        return path.open("rb"), path.stat().st_size


def _write_page(item: GeneratedObject, path: Path) -> None:
    splats = path.with_suffix(".spz")
    write_object(item, splats)
    title = item.prompt or "an object made from an image"
    path.write_text(viewer_page(splats.read_bytes(), splats.name, title), encoding="utf-8")


def _bytes_of(item: GeneratedObject, kind: FileKind) -> bytes:
    file, _ = _made(item, kind)
    with file:
        return file.read()


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(_CHUNK_BYTES):
            yield piece
