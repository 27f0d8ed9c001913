"""Damaged files of every format give a valid result or one sentence: no crash, no hang, no flood of memory.

The readers get the same good files, some written by this package and some built by hand, with bytes changed,
cut out, repeated or promised otherwise. ``-m slow`` tries 10 000 for each suffix.
"""

import random
import time
import tracemalloc
from pathlib import Path

import pytest
import torch

from diffsplat.errors import InvalidInputError
from diffsplat.io.gaussian_arrays import to_splats, without_unusable
from diffsplat.io.splat_formats import SPLAT_FORMATS, read_splats
from diffsplat.io.splat_suffixes import READABLE_SUFFIXES
from support.damaged_files import damaged, good_files

SECONDS = 3.0
OVERHEAD = 3 << 20
"""Bytes that a reader may take whatever the size: what is always allowed to be unpacked, and tables."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    return good_files(tmp_path_factory.mktemp("good"))


def tried(path: Path) -> str | None:
    """What the reader says against a file, or None when its splats are fine."""
    try:
        splats = read_splats(path)
    except InvalidInputError as error:
        message = str(error)
    else:
        assert splats.count >= 1
        assert all(torch.isfinite(value).all() for value in vars(splats).values())
        return None
    assert message.startswith(f"{str(path)!r} is not a readable splat file: ")
    assert "\n" not in message
    return message


def check(suffix: str, files: dict[str, list[bytes]], path: Path, rounds: int, seed: int) -> None:
    source = random.Random(f"{suffix} {seed}")
    valid = refused = 0
    for number in range(rounds):
        data = damaged(files[suffix][number % len(files[suffix])], source)
        path.write_bytes(data)
        start = time.process_time()
        message = tried(path)
        valid += message is None
        refused += message is not None
        assert time.process_time() - start < SECONDS
    assert valid
    assert refused


@pytest.mark.parametrize("suffix", READABLE_SUFFIXES)
def test_damaged_files(files: dict[str, list[bytes]], tmp_path: Path, suffix: str):
    check(suffix, files, tmp_path / f"a{suffix}", rounds=200, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", READABLE_SUFFIXES)
def test_many_damaged_files(files: dict[str, list[bytes]], tmp_path: Path, suffix: str):
    check(suffix, files, tmp_path / f"a{suffix}", rounds=10_000, seed=1)


@pytest.mark.parametrize("suffix", READABLE_SUFFIXES)
def test_damaged_files_do_not_flood_the_memory(files: dict[str, list[bytes]], suffix: str):
    source = random.Random(f"{suffix} memory")
    entry = SPLAT_FORMATS[suffix]
    for number in range(60):
        data = damaged(files[suffix][number % len(files[suffix])], source)
        tracemalloc.start()
        try:
            to_splats(without_unusable(entry.decode(data)), entry.up)
        except ValueError:
            pass
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < OVERHEAD + 10 * len(data)
