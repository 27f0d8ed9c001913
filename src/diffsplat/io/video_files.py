"""Writing videos frame by frame: H.264 in ``.mp4``, animated ``.gif`` and ``.webp``."""

import contextlib
import itertools
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffsplat.errors import InvalidInputError, MissingFileError, require
from diffsplat.io.file_access import atomic_path, require_suffix
from diffsplat.io.image_files import to_pixels

Pixels = NDArray[np.uint8]

_MAX_GIF_FPS = 50
"""Players show frames shorter than 20 ms at a tenth of a second each."""


def write_video(frames: Iterable[Tensor], path: str | Path, *, fps: float = 30, force: bool = False) -> int:
    """Write a video that loops where its format can; the file is complete or absent.

    Args:
        frames: ``[3, H, W]`` sRGB in 0..1, all of one size; iterated over once.
        path: ``.mp4`` (odd sizes are extended by one pixel), ``.gif`` (256 colours a frame) or ``.webp``.
        fps: frames a second.
        force: allow an existing file to be replaced.

    Returns:
        The number of frames.

    Raises:
        ValueError: for an unknown suffix, no frames, frames of different sizes, an impossible frame rate, or
            a path that cannot be written.
        FileNotFoundError: for ``.mp4`` when imageio-ffmpeg came without an ffmpeg for this machine.
    """
    suffix = require_suffix(path, VIDEO_WRITERS, "a video: ")
    limit = _MAX_GIF_FPS if suffix == ".gif" else 1000
    if not 0 < fps <= limit:
        raise InvalidInputError(
            f"the frame rate is {fps:g}, expected above 0 and at most {limit} for {suffix}"
        )
    with atomic_path(path, force=force) as temporary:
        return VIDEO_WRITERS[suffix](_checked(frames), temporary, fps)


def _checked(frames: Iterable[Tensor]) -> Iterator[Pixels]:
    """Frames as ``[H, W, 3]`` bytes; refuses the first that differs in size, and an empty sequence."""
    size: tuple[int, ...] | None = None
    for frame in frames:
        pixels = to_pixels(frame)
        require(pixels.shape[-1] == 3, "the shape of a frame", tuple(frame.shape), "[3, H, W]")
        size = pixels.shape if size is None else size
        if pixels.shape != size:
            raise InvalidInputError(
                f"a frame is {pixels.shape[1]} x {pixels.shape[0]}, the first {size[1]} x {size[0]}"
            )
        yield pixels
    if size is None:
        raise InvalidInputError("the video has no frames, expected at least one")


def _write_mp4(frames: Iterator[Pixels], path: Path, fps: float) -> int:
    first = _even(next(frames))
    command = _ffmpeg_command(path, first.shape[1], first.shape[0], fps)
    with (
        tempfile.TemporaryFile() as log,
        # A session of its own keeps Ctrl-C away from ffmpeg: this process decides what becomes of the file.
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
        ) as process,
    ):
        try:
            count = _feed(cast(IO[bytes], process.stdin), itertools.chain([first], map(_even, frames)))
        except BaseException:
            process.kill()
            raise
        if process.wait():
            log.seek(0)
            reason = log.read(1000).decode("utf-8", errors="replace").strip().splitlines() or [
                "no reason given"
            ]
            raise OSError(f"ffmpeg failed to write the video: {reason[0]}")
    return count


def _feed(pipe: IO[bytes], frames: Iterable[Pixels]) -> int:
    """Write frames until they end or ffmpeg does, whose exit code then tells why; returns how many."""
    count = 0
    with contextlib.suppress(BrokenPipeError), pipe:
        for frame in frames:
            pipe.write(frame.data)
            count += 1
    return count


def _ffmpeg_command(path: Path, width: int, height: int, fps: float) -> list[str]:
    import imageio_ffmpeg

    try:
        executable = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise MissingFileError("there is no ffmpeg for this machine, .gif and .webp need none") from error
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    codec = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "18", "-preset", "veryfast"]
    return [executable, "-v", "error", "-y", *source, "-an", *codec, "-movflags", "+faststart", str(path)]


def _even(frame: Pixels) -> Pixels:
    """Repeat the last row or column where the size is odd, which 4:2:0 colour cannot hold."""
    height, width = (int(edge) for edge in frame.shape[:2])
    padded: Pixels = np.pad(frame, np.array([(0, height % 2), (0, width % 2), (0, 0)]), mode="edge")
    return padded


def _write_gif(frames: Iterator[Pixels], path: Path, fps: float) -> int:
    images = [Image.fromarray(frame).quantize(256, Image.Quantize.FASTOCTREE) for frame in frames]
    durations = [10 * hundredths for hundredths in _durations(len(images), 100 / fps)]
    return _save_animation(images, path, durations, format="GIF")


def _write_webp(frames: Iterator[Pixels], path: Path, fps: float) -> int:
    images = [Image.fromarray(frame) for frame in frames]
    durations = _durations(len(images), 1000 / fps)
    return _save_animation(images, path, durations, format="WEBP", quality=85, method=2)


def _save_animation(images: list[Image.Image], path: Path, durations: list[int], **options: Any) -> int:
    """Save an endless animation with each frame's duration in ms; returns the number of frames."""
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, **options)
    return len(images)


def _durations(count: int, ticks: float) -> list[int]:
    """Whole ticks of every frame that together never drift from ``ticks`` each by more than half a tick."""
    ends = [round(index * ticks) for index in range(count + 1)]
    return [end - start for start, end in itertools.pairwise(ends)]


VIDEO_WRITERS: dict[str, Callable[[Iterator[Pixels], Path, float], int]] = {
    ".mp4": _write_mp4,
    ".gif": _write_gif,
    ".webp": _write_webp,
}
