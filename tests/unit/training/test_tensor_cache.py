"""Chunks on disk are made once, and an interrupted cache is continued."""

from pathlib import Path

import pytest
import torch

from diffsplat.training.tensor_cache import cached_tensors


def test_only_missing_chunks_are_made(tmp_path: Path) -> None:
    made: list[int] = []

    def make(start: int) -> dict[str, torch.Tensor]:
        if start == 4 and len(made) < 3:
            made.append(start)
            raise KeyboardInterrupt
        made.append(start)
        return {"values": torch.arange(start, start + 2)}

    folder = tmp_path / "cache" / "key"
    with pytest.raises(KeyboardInterrupt):
        cached_tensors(folder, (0, 2, 4), make, "numbers")
    chunks = cached_tensors(folder, (0, 2, 4), make, "numbers")
    assert torch.cat([chunk["values"] for chunk in chunks]).tolist() == list(range(6))
    assert made == [0, 2, 4, 4]
    again = cached_tensors(folder, (0, 2, 4), make, "numbers")
    assert [chunk["values"].tolist() for chunk in again] == [[0, 1], [2, 3], [4, 5]]
    assert made == [0, 2, 4, 4]
