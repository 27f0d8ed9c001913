"""Pillow reads the animations back; imageio's ffmpeg reads the mp4 back."""

from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from diffsplat.errors import InvalidInputError
from diffsplat.io.video_files import write_video


def moving_square(count: int, height: int = 48, width: int = 64) -> Iterator[Tensor]:
    """A red square on white that starts at the left and moves four pixels to the right a frame."""
    for index in range(count):
        frame = torch.ones(3, height, width)
        frame[1:, 16:32, 4 * index : 4 * index + 16] = 0
        yield frame


def square_left_edges(frames: list[np.ndarray]) -> list[int]:
    """The first column of each frame whose middle row is red."""
    return [int((frame[24, :, 1] < 128).argmax()) for frame in frames]


def read_animation(path: Path) -> tuple[list[np.ndarray], list[int]]:
    with Image.open(path) as image:
        pairs = [
            (np.array(frame.convert("RGB")), int(frame.info["duration"]))
            for frame in ImageSequence.Iterator(image)
        ]
    return [frame for frame, _ in pairs], [duration for _, duration in pairs]


def read_mp4(path: Path) -> tuple[list[np.ndarray], dict]:
    reader = imageio_ffmpeg.read_frames(str(path))
    facts = next(reader)
    width, height = facts["size"]
    return [np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in reader], facts


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animations_have_every_frame_in_order_and_the_right_length(tmp_path: Path, suffix: str):
    path = tmp_path / f"a{suffix}"
    assert write_video(moving_square(11), path, fps=30) == 11
    frames, durations = read_animation(path)
    assert len(frames) == 11
    assert frames[0].shape == (48, 64, 3)
    assert square_left_edges(frames) == [4 * index for index in range(11)]
    assert sum(durations) == pytest.approx(11000 / 30, abs=10)
    with Image.open(path) as image:
        assert image.info["loop"] == 0
    assert np.abs(frames[3][0, 0].astype(int) - 255).max() <= 2
    assert np.abs(frames[3][24, 20].astype(int) - (255, 0, 0)).max() <= 12


def test_mp4_is_h264_with_every_frame_in_order(tmp_path: Path):
    path = tmp_path / "a.mp4"
    assert write_video(moving_square(11), path, fps=12.5) == 11
    frames, facts = read_mp4(path)
    assert facts["codec"] == "h264"
    assert facts["pix_fmt"].startswith("yuv420p")
    assert facts["fps"] == 12.5
    assert len(frames) == 11
    assert square_left_edges(frames) == [4 * index for index in range(11)]
    assert np.abs(frames[5][0, 0].astype(int) - 255).max() <= 3


@pytest.mark.parametrize(
    ("height", "width", "size"), [(47, 64, (64, 48)), (48, 63, (64, 48)), (1, 1, (2, 2))]
)
def test_odd_sizes_are_extended_to_even_ones(tmp_path: Path, height: int, width: int, size: tuple[int, int]):
    path = tmp_path / "a.mp4"
    write_video([torch.full((3, height, width), 0.5)] * 3, path)
    frames, facts = read_mp4(path)
    assert facts["size"] == size
    assert len(frames) == 3
    assert np.abs(frames[1].astype(int) - 128).max() <= 3


def test_one_frame_is_a_video_too(tmp_path: Path):
    for suffix in (".mp4", ".gif", ".webp"):
        assert write_video(moving_square(1), tmp_path / f"a{suffix}") == 1
    assert len(read_mp4(tmp_path / "a.mp4")[0]) == 1
    for suffix in (".gif", ".webp"):
        with Image.open(tmp_path / f"a{suffix}") as image:
            assert image.size == (64, 48)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_video_leaves_nothing(tmp_path: Path, suffix: str, error: type[BaseException]):
    def frames() -> Iterator[Tensor]:
        yield from moving_square(3)
        raise error

    with pytest.raises(error):
        write_video(frames(), tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_bad_frames_leave_nothing(tmp_path: Path, suffix: str):
    path = tmp_path / f"a{suffix}"
    with pytest.raises(InvalidInputError, match="no frames"):
        write_video([], path)
    with pytest.raises(InvalidInputError, match="a frame is 8 x 9, the first 8 x 8"):
        write_video([torch.zeros(3, 8, 8), torch.zeros(3, 9, 8)], path)
    with pytest.raises(InvalidInputError, match=r"expected \[3, H, W\]"):
        write_video([torch.zeros(4, 8, 8)], path)
    for fps in (0, -1, float("nan"), float("inf"), 5000):
        with pytest.raises(InvalidInputError, match="frame rate"):
            write_video(moving_square(2), path, fps=fps)
    assert list(tmp_path.iterdir()) == []


def test_bad_paths(tmp_path: Path):
    with pytest.raises(InvalidInputError, match=r"expected a video: \.mp4, \.gif, \.webp"):
        write_video(moving_square(2), tmp_path / "a.avi")
    with pytest.raises(InvalidInputError, match="at most 50"):
        write_video(moving_square(2), tmp_path / "a.gif", fps=60)
    (tmp_path / "a.mp4").write_bytes(b"mine")
    with pytest.raises(InvalidInputError, match="exists already"):
        write_video(moving_square(2), tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == b"mine"


def test_a_failing_ffmpeg_is_reported_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho 'no such encoder' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(broken))
    with pytest.raises(OSError, match="no such encoder"):
        write_video(moving_square(300, width=2048), tmp_path / "a.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["ffmpeg"]


def test_a_machine_without_ffmpeg_is_told_what_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def none() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", none)
    with pytest.raises(FileNotFoundError, match=r"\.gif and \.webp need none"):
        write_video(moving_square(2), tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []
