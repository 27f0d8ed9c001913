"""Where a run writes its figures: ``metrics.jsonl``, TensorBoard, images, one progress bar."""

import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from diffsplat.io.file_access import atomic_path, make_folder

logger = logging.getLogger(__name__)


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


class Tracker:
    """Writes the figures of a run from step ``step`` on.

    Args:
        out: folder of the run.
        step: finished steps; later entries of an interrupted run are removed.
        steps: steps of the whole run.
        tensorboard: whether to write TensorBoard events, where it is installed.
    """

    def __init__(self, out: Path, step: int, steps: int, tensorboard: bool) -> None:
        truncate_metrics(out / "metrics.jsonl", step)
        self._out = out
        self._file = (out / "metrics.jsonl").open("a")
        self._board = _tensorboard(out / "tensorboard", step) if tensorboard else None
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
            self._board.close()

    def advance(self) -> None:
        """One step is done."""
        self._bar.update(1)

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Log figures of one kind, ``train`` or ``evaluation``."""
        self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)
        if kind == "train":
            rate = f"{values['samples_per_second']:.1f}/s"
            self._bar.set_postfix(loss=f"{values['loss']:.4g}", samples=rate, refresh=False)

    def images(self, step: int, images: Mapping[str, Tensor]) -> None:
        """Log ``[3, H, W]`` images in 0..1; the newest are also PNG files under ``images/``."""
        folder = self._out / "images"
        for name, image in images.items():
            pixels = image.detach().float().cpu().clamp(0, 1)
            if self._board is not None:
                self._board.add_image(name, pixels, step)
            path = folder / f"{name}.png"
            make_folder(path.parent)
            with atomic_path(path, force=True) as temporary:
                array = (pixels.permute(1, 2, 0) * 255).round().byte().numpy()
                Image.fromarray(np.ascontiguousarray(array)).save(temporary)

    def flush(self) -> None:
        """Bring every figure so far to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._board is not None:
            self._board.flush()


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("tensorboard is not installed (extra [train]); figures go to metrics.jsonl only")
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
