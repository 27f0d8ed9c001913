"""Checkpoints are whole, exact, and passed over when damaged."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffsplat.training.checkpoints import (
    BrokenCheckpointError,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)

GROUPS = {
    "weights": {"a": torch.tensor([[0.1, float("inf")], [-0.0, 1e-45]]), "b": torch.arange(3)},
    "optimizer": {"a|step": torch.tensor(7.0), "a|exp_avg": torch.randn(4, 6).t()},
}


def _save(root: Path, *steps: int, keep: int = 2) -> None:
    for step in steps:
        save_checkpoint(root, step, GROUPS, {"seconds": 0.1 + 0.2, "of": step}, keep)


def test_checkpoint_returns_every_bit(tmp_path: Path) -> None:
    _save(tmp_path, 5)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.counters) == (5, {"seconds": 0.1 + 0.2, "of": 5})
    for group, tensors in GROUPS.items():
        assert found.groups[group].keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found.groups[group][name].dtype == tensor.dtype
            assert found.groups[group][name].numpy().tobytes() == tensor.contiguous().numpy().tobytes()


def test_no_file_is_a_pickle(tmp_path: Path) -> None:
    _save(tmp_path, 5)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".safetensors", ".json"}


def test_only_the_newest_stay_and_unfinished_ones_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-00000002").mkdir(parents=True)
    assert newest_checkpoint(tmp_path) is None
    _save(tmp_path, 5, 90, 1000, 200000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00001000", "step-00200000"]


def test_a_checkpoint_removes_those_of_an_abandoned_future(tmp_path: Path) -> None:
    _save(tmp_path, 10, 20, 15)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000010", "step-00000015"]


def _flip_a_byte(folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 0x10
    path.write_bytes(data)


def _truncate(folder: Path) -> None:
    path = folder / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def _lose_state(folder: Path) -> None:
    (folder / "state.json").unlink()


def _tear_state(folder: Path) -> None:
    (folder / "state.json").write_text((folder / "state.json").read_text()[:40])


def _other_json(folder: Path) -> None:
    (folder / "state.json").write_text(json.dumps([1, 2]))


@pytest.mark.parametrize("damage", [_flip_a_byte, _truncate, _lose_state, _tear_state, _other_json])
def test_damaged_newest_falls_back_to_the_one_before(tmp_path: Path, damage, caplog) -> None:
    _save(tmp_path, 1, 2)
    damage(tmp_path / "step-00000002")
    with caplog.at_level(logging.WARNING):
        found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1
    assert "step-00000002" in caplog.text


def test_all_damaged_is_an_error_and_not_a_new_beginning(tmp_path: Path) -> None:
    _save(tmp_path, 1, 2)
    for folder in list_checkpoints(tmp_path):
        _truncate(folder)
    with pytest.raises(BrokenCheckpointError, match="every checkpoint"):
        newest_checkpoint(tmp_path)


def test_no_flipped_bit_of_the_state_passes(tmp_path: Path) -> None:
    _save(tmp_path, 7)
    (folder,) = list_checkpoints(tmp_path)
    path = folder / "state.json"
    whole = path.read_bytes()
    content = json.loads(whole)
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = load_checkpoint(folder)
        except BrokenCheckpointError:
            continue
        # A flipped bit in the white space between values changes nothing that is read.
        assert json.loads(damaged) == content
        assert (found.step, found.counters) == (7, content["counters"])


WRITER = """
import resource, signal, sys
from pathlib import Path
import torch
from diffsplat.errors import InvalidInputError
from diffsplat.training.checkpoints import save_checkpoint
root = Path(sys.argv[1])
groups = {"weights": {"a": torch.zeros(100_000)}}
save_checkpoint(root, 1, groups, {}, keep=2)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    save_checkpoint(root, 2, groups, {}, keep=1)
except InvalidInputError as error:
    print(error)
"""


def test_a_write_that_fails_is_one_sentence_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """The system refuses to write more than half of the file, as a full disk does."""
    script = [sys.executable, "-c", WRITER, str(tmp_path / "run")]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert "the checkpoint of step 2 cannot be written" in done.stdout
    assert "File too large" in done.stdout
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["step-00000001"]
    found = newest_checkpoint(tmp_path / "run")
    assert found is not None
    assert torch.equal(found.groups["weights"]["a"], torch.zeros(100_000))
