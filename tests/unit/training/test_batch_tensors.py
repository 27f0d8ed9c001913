"""Batches of any type move and are counted."""

from dataclasses import dataclass

import torch

from diffsplat.training.batch_tensors import batch_size, to_device


@dataclass(frozen=True)
class _Batch:
    name: str
    parts: dict[str, tuple[torch.Tensor, ...]]


def test_batches_of_any_type_move_and_are_counted() -> None:
    batch = _Batch("x", {"a": (torch.zeros(5, 2), torch.zeros(5))})
    assert batch_size(batch) == 5
    assert batch_size("x") == 1
    moved = to_device(batch, torch.device("meta"))
    assert [t.device.type for t in moved.parts["a"]] == ["meta", "meta"]
    assert moved.name == "x"
    assert to_device(batch, torch.device("cpu")) is batch
