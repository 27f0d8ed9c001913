"""What a run ends with: its outcome, and folders that are complete or absent."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffsplat.io.file_access import STORAGE_ERRORS, explained_os_errors, give_usual_permissions, make_folder

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


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A new folder that is put in the place of ``target`` when the block succeeds, and removed when it fails.

    Raises:
        ValueError: when the disk is full.
    """
    temporary, replaced = (
        target.with_name(f".{state}-{target.name}") for state in ("unfinished", "replaced")
    )
    for leftover in (temporary, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    make_folder(temporary)
    try:
        with explained_os_errors(f"cannot write {str(target)!r}", STORAGE_ERRORS):
            yield temporary
            give_usual_permissions(temporary)
            if target.exists():
                target.rename(replaced)
            temporary.rename(target)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
