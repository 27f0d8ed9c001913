"""Trained networks to a model folder that the pipeline loads."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffsplat.data.credits_page import credits_page, licences_summary
from diffsplat.data.object_dataset import read_rows
from diffsplat.data.trained_words import TrainedWords
from diffsplat.errors import InvalidInputError, MissingFileError
from diffsplat.io.json_files import read_json
from diffsplat.models.mini_denoiser import denoised_channels
from diffsplat.pretrained.model_folders import TEXT_COMPONENTS, write_index
from diffsplat.pretrained.schedulers import make_scheduler
from diffsplat.training.config_record import read_record
from diffsplat.training.recipes.recipe import NETWORKS, SamplingRecipe
from diffsplat.training.run_folders import RunFolders
from diffsplat.training.run_outcome import atomic_folder

_NETWORK_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
_TEXT_FILES = ("config.json", "model.safetensors", "tokenizer.json")


def export_model(target: Path, folders: RunFolders, sampling: SamplingRecipe, *, force: bool = False) -> int:
    """Write a model folder, complete or not at all.

    It holds ``model_index.json``, a folder for each network, the scheduler, ``README.md`` with what the runs say
    about the training, ``CREDITS.md`` of every object in the data, and
    ``words.json`` with the nouns. Without a trained refiner the model has none.

    Args:
        target: the model folder.
        folders: of the runs of all stages.
        sampling: how the model is sampled.
        force: replace an existing folder.

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
    with atomic_folder(target) as folder:
        _write(folder, folders, sampling)
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())


def _write(folder: Path, folders: RunFolders, sampling: SamplingRecipe) -> None:
    runs = {network: folders.out / stage for stage, network in NETWORKS.items()}
    defaults = sampling.defaults
    refined = defaults.refined_below > 0 and (runs["refiner"] / "weights").is_dir()
    if not refined:
        del runs["refiner"]
        defaults = replace(defaults, refined_below=0.0, refiner_guidance=1.0)
    for network, run in runs.items():
        _copy(run / "weights", folder / network, _NETWORK_FILES)
    if refined:
        _check_refiner(folder, runs["refiner"], defaults.refined_below)
    _copy(folders.text_encoder, folder / "text_encoder", _TEXT_FILES)
    scheduler = make_scheduler(sampling.sampler, {"shift": sampling.shift}, defaults.prediction)
    scheduler.save_pretrained(folder / "scheduler")
    write_index(folder, (*TEXT_COMPONENTS, "refiner") if refined else TEXT_COMPONENTS, defaults)
    rows = [row for shards in folders.data for row in read_rows(shards)]
    (folder / "CREDITS.md").write_text(credits_page(rows), encoding="utf-8")
    TrainedWords.of(rows).save(folder)
    (folder / "README.md").write_text(_model_card(runs, licences_summary(rows)), encoding="utf-8")


def _check_refiner(folder: Path, run: Path, refined_below: float) -> None:
    """Refuse a refiner of other latents than the denoiser's, or one that is to be used above its training levels."""
    channels = [
        denoised_channels(read_json(folder / name / "config.json")) for name in ("refiner", "denoiser")
    ]
    if channels[0] != channels[1]:
        raise InvalidInputError(
            f"the refiner denoises {channels[0]} channels, expected the denoiser's {channels[1]}"
        )
    network = read_record(run).get("stage", {}).get("network", {})
    greatest = float(network.get("greatest_level", 1.0))
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


def _model_card(runs: Mapping[str, Path], licences: str) -> str:
    """Markdown page of what the runs of the networks say: configuration, steps, hours, last figures."""
    lines = [
        "# A small text-to-splats model",
        "",
        "Text to 3D Gaussian splats by diffusing splat latents of four views. Trained by diffsplat on renders of",
        f"these objects: {licences}. `CREDITS.md` names every one of them.",
        "The licence of the weights is for whoever trained them to choose, within what those of the objects allow.",
        "",
        "| network | steps | samples | hours | precision | held-out figures, averaged weights |",
        "|---|---|---|---|---|---|",
        *(_card_row(network, run) for network, run in runs.items()),
        "",
        "PSNR in dB: `input` on the four views given, `novel` on others of the same object.",
    ]
    return "\n".join(lines) + "\n"


def _card_row(name: str, run: Path) -> str:
    entries: dict[str, dict[str, Any]] = {}
    if (run / "metrics.jsonl").is_file():
        for line in (run / "metrics.jsonl").read_text().splitlines():
            entry = json.loads(line)
            entries[entry.pop("kind")] = entry
    precision = read_record(run).get("trainer", {}).get("precision", "")
    train, evaluation = entries.get("train", {}), entries.get("evaluation", {})
    at = evaluation.pop("step", None)
    figures = ", ".join(f"{key} {value:.3f}" for key, value in evaluation.items())
    hours = f"{train['seconds'] / 3600:.2f}" if train else ""
    measured = f"{figures} (step {at})" if at is not None else ""
    return f"| {name} | {train.get('step', '')} | {train.get('samples', '')} | {hours} | {precision} | {measured} |"
