"""Trained networks to a model folder that the pipeline loads."""

import json
import os
import shutil
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from diffsplat.data.credits_page import credits_page
from diffsplat.data.object_dataset import read_rows
from diffsplat.errors import InvalidInputError, MissingFileError
from diffsplat.models.mini_denoiser import denoised_channels
from diffsplat.pretrained.catalogue import Sampler
from diffsplat.pretrained.model_folders import (
    DEFAULT_ELEVATION_DEG,
    DEFAULT_GUIDANCE,
    DEFAULT_SHIFT,
    DEFAULT_STEPS,
    SamplingDefaults,
    write_index,
)
from diffsplat.pretrained.schedulers import make_scheduler
from diffsplat.training.trainer_config import REFINER_LEVEL

_NETWORK_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
_TEXT_FILES = ("config.json", "model.safetensors", "tokenizer.json")


@dataclass(frozen=True)
class ModelParts:
    """Folders of the networks of a model, each as its stage wrote it; None for no refiner."""

    reconstructor: Path
    autoencoder: Path
    denoiser: Path
    text_encoder: Path
    refiner: Path | None = None


@dataclass(frozen=True)
class ExportConfig:
    """How the model is sampled unless its user says otherwise.

    Args:
        steps: denoising steps.
        guidance: classifier-free guidance scale.
        elevation_deg: degrees above the horizon of the generated views.
        smoothing: pixels that generated surfaces are smoothed by before Gaussians are laid on them; 0 for neither.
        refiner: whether the model has the refiner, where one was trained.
        refined_below: noise level below which it takes over.
        refiner_guidance: its classifier-free guidance scale; up to 1 for none.
        shift: of the noise levels towards noise, 1 for none (Esser et al. 2024, section 5.3.2).
        sampler: how it is stepped from noise level to noise level.
    """

    steps: int = DEFAULT_STEPS
    guidance: float = DEFAULT_GUIDANCE
    elevation_deg: float = DEFAULT_ELEVATION_DEG
    smoothing: float = 0.0
    refiner: bool = True
    refined_below: float = REFINER_LEVEL
    refiner_guidance: float = 1.0
    shift: float = DEFAULT_SHIFT
    sampler: Sampler = "euler"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.shift <= 0 or self.smoothing < 0:
            raise InvalidInputError(
                f"steps {self.steps}, shift {self.shift}, smoothing {self.smoothing}: expected at least 1, a "
                "positive number and no negative one"
            )
        if not 0 < self.refined_below < 1:
            raise InvalidInputError(
                f"refined_below is {self.refined_below}, expected a level between 0 and 1"
            )
        if not 0 <= self.refiner_guidance < inf:
            raise InvalidInputError(
                f"refiner_guidance is {self.refiner_guidance}, expected a finite number of at least 0"
            )


def export_model(
    target: Path, parts: ModelParts, config: ExportConfig, data: tuple[Path, ...], *, force: bool = False
) -> int:
    """Write a model folder, complete or not at all.

    It holds ``model_index.json``, a folder for each network, the scheduler, ``README.md`` with what the runs say
    about the training, and ``CREDITS.md`` of every object in ``data``.

    Returns:
        Bytes of all its files.

    Raises:
        FileNotFoundError: when a network is not trained yet.
        ValueError: when ``target`` exists without ``force``, or is no folder, or when the refiner is of other
            latents than the denoiser or was not trained up to the level that it is to take over at.
    """
    if target.exists() and not (force and target.is_dir()):
        raise InvalidInputError(
            f"{str(target)!r} exists already, expected a new folder or force to replace it"
        )
    chosen = parts if config.refiner else replace(parts, refiner=None)
    temporary = target.with_name(f".unfinished-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _write(temporary, chosen, config, data)
        size = sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file())
        _replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return size


def _write(folder: Path, parts: ModelParts, config: ExportConfig, data: tuple[Path, ...]) -> None:
    for name in ("reconstructor", "autoencoder", "denoiser"):
        _copy(getattr(parts, name), folder / name, _NETWORK_FILES)
    if parts.refiner is not None:
        _copy(parts.refiner, folder / "refiner", _NETWORK_FILES)
        _check_refiner(folder, parts.refiner, config.refined_below)
    _copy(parts.text_encoder, folder / "text_encoder", _TEXT_FILES)
    scheduler = make_scheduler(config.sampler, {"shift": config.shift}, "latents")
    scheduler.save_pretrained(folder / "scheduler")
    defaults = SamplingDefaults(
        config.steps,
        config.guidance,
        config.elevation_deg,
        smoothing=config.smoothing,
        refined_below=config.refined_below if parts.refiner is not None else 0.0,
        refiner_guidance=config.refiner_guidance if parts.refiner is not None else 1.0,
    )
    write_index(folder, defaults, refiner=parts.refiner is not None)
    (folder / "CREDITS.md").write_text(credits_page(row for place in data for row in read_rows(place)))
    (folder / "README.md").write_text(model_card(parts))


def _check_refiner(folder: Path, refiner: Path, refined_below: float) -> None:
    """Refuse a refiner that does not go with the denoiser beside it or with the level that it is used from."""
    channels = [
        denoised_channels(json.loads((folder / name / "config.json").read_text()))
        for name in ("refiner", "denoiser")
    ]
    if channels[0] != channels[1]:
        raise InvalidInputError(
            f"the refiner denoises {channels[0]} channels, expected the denoiser's {channels[1]}"
        )
    greatest = float(_record(refiner.parent).get("stage", {}).get("greatest_level", 1.0))
    if refined_below > greatest:
        raise InvalidInputError(
            f"refined_below is {refined_below}, expected at most the {greatest:g} that the refiner was trained up to"
        )


def _copy(source: Path, target: Path, names: tuple[str, ...]) -> None:
    target.mkdir()
    for name in names:
        if not (source / name).is_file():
            raise MissingFileError(f"{str(source)!r} lacks its file {name}, expected a trained network")
        shutil.copyfile(source / name, target / name)


def _replace(temporary: Path, target: Path) -> None:
    if target.exists():
        old = target.with_name(f".replaced-{target.name}")
        shutil.rmtree(old, ignore_errors=True)
        os.rename(target, old)
        os.rename(temporary, target)
        shutil.rmtree(old)
    else:
        os.rename(temporary, target)


def model_card(parts: ModelParts) -> str:
    """Markdown page of what the runs beside the networks say: configuration, steps, hours, last figures."""
    lines = [
        "# A small text-to-splats model",
        "",
        "Text to 3D Gaussian splats by diffusing splat latents of four views. Trained by this package on renders",
        "of openly licensed objects; `CREDITS.md` names every one of them. Weights: Apache-2.0.",
        "",
        "| stage | steps | samples | hours | precision | held-out figures, averaged weights |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_card_row(name, run) for name, run in _runs(parts)]
    lines += [
        "",
        "PSNR in dB: `psnr_input` on the four views given, `psnr_novel` on others of the same object.",
    ]
    return "\n".join(lines) + "\n"


def _runs(parts: ModelParts) -> list[tuple[str, Path]]:
    """The runs that the networks come from."""
    return [
        ("reconstructor", parts.reconstructor.parent),
        ("autoencoder", parts.autoencoder.parent),
        ("denoiser", parts.denoiser.parent),
        *([] if parts.refiner is None else [("refiner", parts.refiner.parent)]),
    ]


def _record(run: Path) -> dict[str, Any]:
    path = run / "config.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _card_row(name: str, run: Path) -> str:
    entries: dict[str, dict[str, Any]] = {}
    if (run / "metrics.jsonl").is_file():
        for line in (run / "metrics.jsonl").read_text().splitlines():
            entry = json.loads(line)
            entries[entry.pop("kind")] = entry
    config = _record(run)
    precision = config.get("trainer", config).get("precision", "")
    train, evaluation = entries.get("train", {}), entries.get("evaluation", {})
    at = evaluation.pop("step", None)
    figures = ", ".join(f"{key} {value:.3f}" for key, value in evaluation.items())
    hours = f"{train['seconds'] / 3600:.2f}" if train else ""
    measured = f"{figures} (step {at})" if at is not None else ""
    return f"| {name} | {train.get('step', '')} | {train.get('samples', '')} | {hours} | {precision} | {measured} |"
