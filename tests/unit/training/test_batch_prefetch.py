"""Batches come in order from a thread that runs no further than asked, and from any number of processes."""

import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from diffsplat.core import Views
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.errors import InvalidInputError
from diffsplat.training.batch_prefetch import thread_batches, worker_batches
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.run_processes import LostProcessError
from diffsplat.training.view_batches import ViewSourceConfig
from support.object_shards import numbered_cells, write_rows, write_shards


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_prefetcher_gives_every_item_once_in_order_and_runs_no_further_than_asked(ahead: int) -> None:
    asked: list[int] = []

    def load(index: int) -> int:
        asked.append(index)
        return index * index

    with thread_batches(load, range(3, 9), ahead) as items:
        taken = []
        for index in range(3, 9):
            taken.append(next(items))
            assert max(asked) <= index + ahead
    assert taken == [index * index for index in range(3, 9)]
    assert asked == list(range(3, 9))
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_prefetcher_raises_the_source_s_error_at_its_item() -> None:
    def load(index: int) -> int:
        if index == 1:
            raise OSError("shard 7 is gone")
        return index

    with thread_batches(load, range(5), 2) as items:
        assert next(items) == 0
        with pytest.raises(OSError, match="shard 7"):
            next(items)


@dataclass
class Fatal:
    """Ends the process that is asked for a number."""

    number: int

    def batch(self, number: int) -> int:
        if number == self.number:
            os.kill(os.getpid(), signal.SIGKILL)
        return number


def test_workers_give_the_batches_of_one_thread_in_their_order(tmp_path: Path) -> None:
    """From the middle of an epoch, as every second batch, as one of two resumed processes reads it."""
    folders = StageFolders((write_shards(tmp_path / "data", 3, 7),), tmp_path / "run")
    source = ViewSourceConfig(batch_size=3, novel_views=2, balance_nouns=True, seed=5).build(folders)
    numbers = range(5, 17, 2)
    with thread_batches(source.batch, numbers, 0) as items:
        expected: list[Views] = [next(items) for _ in numbers]
    assert len({views.prompt for views in expected}) > 3
    with worker_batches(source.batch, numbers, 2, 2) as items:
        for one in expected:
            other = next(items)
            assert other.prompt == one.prompt
            for name in ("image", "mask", "normal", "coord", "depth"):
                assert torch.equal(getattr(one, name), getattr(other, name))
            assert torch.equal(one.cameras.camera_to_world, other.cameras.camera_to_world)


def test_a_worker_s_error_is_the_sentence_that_the_thread_would_give(tmp_path: Path) -> None:
    broken = numbered_cells(1, split="train") | {"normal": [b"no image"] * 4}
    path = write_rows(tmp_path, 0, [broken])
    dataset = ObjectDataset(tmp_path)
    with (
        worker_batches(dataset.canonical, range(1), 1, 1) as items,
        pytest.raises(InvalidInputError, match="row 0, is not a readable shard") as caught,
    ):
        next(items)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_killed_worker_is_one_sentence() -> None:
    with (
        worker_batches(Fatal(0).batch, range(6), 1, 1) as items,
        pytest.raises(LostProcessError, match="a process that reads data was killed"),
    ):
        next(items)
