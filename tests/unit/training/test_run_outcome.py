"""Folders that a run writes are complete or absent."""

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from diffsplat.errors import DiskError
from diffsplat.training.run_outcome import atomic_folder


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_folder_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    for number in ("1", "2"):
        with atomic_folder(tmp_path / "out" / "weights") as folder:
            (folder / f"file-{number}").write_text(number)
            assert folder != tmp_path / "out" / "weights"
    assert contents(tmp_path) == {"out/weights/file-2": "2"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["weights"]


def test_weights_can_be_read_by_whoever_reads_other_files(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "weights") as folder:
        (folder / "config.json").touch()
        save_file({"weight": torch.zeros(1)}, folder / "model.safetensors")
    assert len({path.stat().st_mode for path in (tmp_path / "weights").iterdir()}) == 1


def test_a_failure_leaves_the_folder_before_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "file").write_text("whole")

    def fail() -> None:
        with atomic_folder(tmp_path / "weights") as folder:
            (folder / "file").write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert contents(tmp_path) == {"weights/file": "whole"}
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-weights").mkdir()
    (tmp_path / ".unfinished-weights" / "stale").touch()
    with atomic_folder(tmp_path / "weights") as folder:
        (folder / "file").write_text("whole")
    assert contents(tmp_path) == {"weights/file": "whole"}


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Safetensors' error has the system's number in its text alone."""

    def fill(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("diffsplat.training.run_outcome.give_usual_permissions", fill)
    with (
        pytest.raises(DiskError, match="weights': No space left on device"),
        atomic_folder(tmp_path / "weights"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
