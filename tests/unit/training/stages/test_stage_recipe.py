"""Runs of one stage end with one sentence when the disk is full."""

import errno
import os
from pathlib import Path

import pytest

from diffsplat.errors import DiskError
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.run_outcome import Outcome
from diffsplat.training.run_processes import Processes
from diffsplat.training.stages.stage_recipe import StageRecipe, train_stage


class _FailingRecipe(StageRecipe):
    def __init__(self, error: OSError) -> None:
        self._error = error

    def run(self, folders: StageFolders) -> Outcome:
        raise self._error

    def processes(self) -> Processes:
        return Processes("cpu")

    def is_finished(self, out: Path) -> bool:
        return False


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(DiskError, match="the same command goes on from its newest checkpoint: No space left"):
        train_stage(_FailingRecipe(full), StageFolders((tmp_path,), tmp_path / "run"))


def test_other_errors_of_the_system_are_left_alone(tmp_path: Path) -> None:
    missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    with pytest.raises(FileNotFoundError):
        train_stage(_FailingRecipe(missing), StageFolders((tmp_path,), tmp_path / "run"))
