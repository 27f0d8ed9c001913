"""Batches come in order from a thread that runs no further than asked."""

import threading

import pytest

from diffsplat.training.batch_prefetch import Prefetcher


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_prefetcher_gives_every_item_once_in_order_and_runs_no_further_than_asked(ahead: int) -> None:
    asked: list[int] = []

    def load(index: int) -> int:
        asked.append(index)
        return index * index

    with Prefetcher(load, 3, 9, ahead) as items:
        taken = []
        for index in range(3, 9):
            taken.append(items.take())
            assert max(asked) <= index + ahead
    assert taken == [index * index for index in range(3, 9)]
    assert asked == list(range(3, 9))
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_prefetcher_raises_the_source_s_error_at_its_item() -> None:
    def load(index: int) -> int:
        if index == 1:
            raise OSError("shard 7 is gone")
        return index

    with Prefetcher(load, 0, 5, 2) as items:
        assert items.take() == 0
        with pytest.raises(OSError, match="shard 7"):
            items.take()
