"""Where a run writes its figures: ``metrics.jsonl``, an experiment tracker, images, one progress bar."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from diffsplat.errors import MissingPackageError
from diffsplat.io.file_access import atomic_path, make_folder

TrackerName = Literal[
    "tensorboard", "wandb", "none", "aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "trackio"
]


def truncate_metrics(path: Path, step: int) -> None:
    """Drop the lines of later steps than ``step`` and a torn last line."""
    if not path.exists():
        return
    kept: list[str] = []
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if entry["step"] <= step:
            kept.append(line + "\n")
    with atomic_path(path, force=True) as temporary:
        temporary.write_text("".join(kept))


def training_losses(out: Path) -> tuple[float, float]:
    """The first and the last training loss of a run, each the mean of a window."""
    entries = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    losses = [float(entry["loss"]) for entry in entries if entry["kind"] == "train"]
    return losses[0], losses[-1]


class Tracker:
    """Writes the figures of a run from step ``step`` on.

    Args:
        out: folder of the run.
        step: finished steps; later entries of an interrupted run are removed.
        steps: steps of the whole run.
        tracker: what else gets the figures and images.
    """

    def __init__(self, out: Path, step: int, steps: int, tracker: TrackerName) -> None:
        truncate_metrics(out / "metrics.jsonl", step)
        self._out = out
        self._file = (out / "metrics.jsonl").open("a")
        self._board = _open_tracker(tracker, out, step)
        interval = 0.2 if sys.stderr.isatty() else 30.0
        self._bar = tqdm(
            total=steps, initial=step, desc=out.name, unit="step", mininterval=interval, file=sys.stderr
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._file.close()
        if self._board is not None:
            self._board.finish()

    def advance(self) -> None:
        """One step is done."""
        self._bar.update(1)

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Log figures of one kind, ``train`` or ``evaluation``."""
        self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            self._board.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)
        if kind == "train":
            rate = f"{values['samples_per_second']:.1f}/s"
            self._bar.set_postfix(loss=f"{values['loss']:.4g}", samples=rate, refresh=False)

    def images(self, step: int, images: Mapping[str, Tensor]) -> None:
        """Log ``[3, H, W]`` images in 0..1; the newest are also PNG files under ``images/``."""
        folder = self._out / "images"
        for name, image in images.items():
            rows = image.detach().float().cpu().clamp(0, 1).permute(1, 2, 0)
            pixels = np.ascontiguousarray((rows * 255).round().byte().numpy())
            if hasattr(self._board, "log_images"):
                layout = {"dataformats": "NHWC"} if self._board.name == "tensorboard" else {}
                self._board.log_images({name: pixels[None]}, step=step, **layout)
            path = folder / f"{name}.png"
            make_folder(path.parent)
            with atomic_path(path, force=True) as temporary:
                Image.fromarray(pixels).save(temporary)

    def flush(self) -> None:
        """Bring every figure so far to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())


def require_tracker(name: TrackerName) -> None:
    """Check that a tracker can be used, before anything is computed.

    Raises:
        MissingPackageError: when its package is not installed.
    """
    if name == "none":
        return
    from accelerate.tracking import get_available_trackers

    if name not in map(str, get_available_trackers()):
        raise MissingPackageError(
            f"tracker is {name}, which is not installed: expected 'pip install {name.replace('_', '-')}', or "
            "--tracker none; metrics.jsonl is written in any case"
        )


def _open_tracker(name: TrackerName, out: Path, step: int) -> Any:
    """The tracker of accelerate with that name; later entries of an interrupted run are removed where it can."""
    if name == "none":
        return None
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    tracker_class = LOGGER_TYPE_TO_CLASS[name]
    match name:
        case "tensorboard":
            tracker = tracker_class(name, logging_dir=out, purge_step=step + 1 if step else None)
        case "wandb":
            run = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]
            tracker = tracker_class("diffsplat", name=out.name, dir=str(out), id=run, resume="allow")
        case _:
            folder = {"logging_dir": out} if tracker_class.requires_logging_directory else {}
            tracker = tracker_class("diffsplat", **folder)
    if hasattr(tracker, "start"):
        tracker.start()
    return tracker
