"""What a run leaves in its folder: the record of its configuration, and weights."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from diffsplat.io.file_access import atomic_path
from diffsplat.io.json_files import read_json

Status = Literal["finished", "out_of_time", "interrupted"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        status: ``out_of_time`` and ``interrupted`` left a checkpoint that the next run continues from.
        step: finished steps.
        figures: scalars of the last evaluation in this process.
        weights: folder with the weights; of an earlier stop, or absent, after ``interrupted``.
    """

    status: Status
    step: int
    figures: dict[str, float]
    weights: Path


def write_record(out: Path, record: Mapping[str, Any]) -> None:
    """Write a configuration as ``config.json``."""
    with atomic_path(out / "config.json", force=True) as temporary:
        temporary.write_text(json.dumps(record, indent=1, default=str) + "\n")


def read_record(out: Path) -> dict[str, Any]:
    """Read what :func:`write_record` wrote; nothing where there is no run."""
    path = out / "config.json"
    return read_json(path) if path.is_file() else {}


def write_weights(save: Callable[[Path], None], out: Path) -> Path:
    """Let ``save`` write a network into ``out / "weights"``, complete or not at all."""
    target = out / "weights"
    temporary = target.with_name(".unfinished-weights")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save(temporary)
    if target.exists():
        shutil.rmtree(target)
    temporary.rename(target)
    return target
