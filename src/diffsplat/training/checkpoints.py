"""Checkpoints: a folder of safetensors and one JSON, complete or not there.

``checkpoints/step-00001200/`` holds one ``<group>.safetensors`` for each group of tensors and ``state.json``
with the counters, a CRC-32 of every other file, and one of its own content.
"""

import json
import logging
import os
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import explained_os_errors

logger = logging.getLogger(__name__)

Groups = Mapping[str, Mapping[str, Tensor]]
_PREFIX = "step-"
_UNFINISHED = ".unfinished-"
_STATE_FILE = "state.json"
_CHANGED = "does not have the content that it was written with"


@dataclass(frozen=True)
class Checkpoint:
    """What a run continues from.

    Args:
        step: finished steps.
        groups: tensors on the CPU by group and name.
        counters: the rest of the state, JSON values.
    """

    step: int
    groups: dict[str, dict[str, Tensor]]
    counters: dict[str, Any]


class BrokenCheckpointError(InvalidInputError):
    """A checkpoint folder that is incomplete or damaged."""


def save_checkpoint(root: Path, step: int, groups: Groups, counters: Mapping[str, Any], keep: int) -> Path:
    """Write a checkpoint under ``root``, then remove all but the newest ``keep`` and any of a later step.

    Nothing appears under the final name before every byte is on disk.

    Raises:
        ValueError: when the disk is full or the folder cannot be written; no earlier checkpoint is touched.
    """
    folder = root / f"{_UNFINISHED}{step:08d}"
    failure = (
        f"the checkpoint of step {step} cannot be written to {str(root)!r}; make room there and run the same command "
        "again, which continues from the checkpoint before"
    )
    try:
        with explained_os_errors(failure):
            root.mkdir(parents=True, exist_ok=True)
            for stale in root.glob(f"{_UNFINISHED}*"):
                shutil.rmtree(stale)
            _write(folder, step, groups, counters)
    except InvalidInputError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    target = checkpoint_folder(root, step)
    for abandoned in list_checkpoints(root):
        if abandoned.name >= target.name:
            shutil.rmtree(abandoned)
    folder.rename(target)
    _flush(root)
    for old in list_checkpoints(root)[:-keep]:
        shutil.rmtree(old)
    return target


def _write(folder: Path, step: int, groups: Groups, counters: Mapping[str, Any]) -> None:
    """Write the files of a checkpoint and bring them to disk."""
    folder.mkdir()
    checks: dict[str, int] = {}
    for group, tensors in groups.items():
        path = folder / f"{group}.safetensors"
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path)
        checks[path.name] = _crc(path)
    state = {"step": step, "files": checks, "counters": dict(counters)}
    (folder / _STATE_FILE).write_text(json.dumps({**state, "crc32": _content_crc(state)}, indent=1))
    for path in (*folder.iterdir(), folder):
        _flush(path)


def list_checkpoints(root: Path) -> list[Path]:
    """Checkpoint folders under ``root``, oldest first."""
    return sorted(path for path in root.glob(f"{_PREFIX}*") if path.is_dir())


def checkpoint_folder(root: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return root / f"{_PREFIX}{step:08d}"


def checkpoint_step(folder: Path) -> int:
    """Finished steps of a checkpoint folder, by its name."""
    return int(folder.name.removeprefix(_PREFIX))


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        BrokenCheckpointError: for a folder that is incomplete or damaged.
    """
    try:
        state = json.loads((folder / _STATE_FILE).read_text())
        if state.pop("crc32") != _content_crc(state):
            raise ValueError(f"{_STATE_FILE} {_CHANGED}")
        for name, crc in state["files"].items():
            if _crc(folder / name) != crc:
                raise ValueError(f"{name} {_CHANGED}")
        groups = {Path(name).stem: load_file(folder / name) for name in state["files"]}
        return Checkpoint(int(state["step"]), groups, dict(state["counters"]))
    except (OSError, KeyError, TypeError, AttributeError, ValueError, SafetensorError) as error:
        raise BrokenCheckpointError(f"{folder} is not a complete checkpoint: {error}") from error


def newest_checkpoint(root: Path) -> Checkpoint | None:
    """The newest whole checkpoint under ``root``; broken ones are passed over with a warning.

    Raises:
        BrokenCheckpointError: when there are checkpoints and all are broken.
    """
    folders = list_checkpoints(root)
    for folder in reversed(folders):
        try:
            return load_checkpoint(folder)
        except BrokenCheckpointError as error:
            logger.warning("%s; trying the one before", error)
    if folders:
        raise BrokenCheckpointError(f"every checkpoint in {root} is broken; remove the folder to start over")
    return None


def _crc(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def _content_crc(state: Mapping[str, Any]) -> int:
    """CRC-32 of JSON values, whatever the layout of their file."""
    return zlib.crc32(json.dumps(state, sort_keys=True).encode())


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
