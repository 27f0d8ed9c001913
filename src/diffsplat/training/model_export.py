"""Trained networks to a model folder that the pipeline loads."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from diffsplat.data.credits_page import credits_page, licences_summary
from diffsplat.data.training_vocabulary import TrainingVocabulary
from diffsplat.errors import InvalidInputError, MissingFileError, require
from diffsplat.io.json_files import read_json
from diffsplat.models.multiview_pixart import MultiViewPixArt
from diffsplat.models.network_base_class import CONFIG_FILE, RELEASED_WEIGHTS_FILE, WEIGHTS_FILE
from diffsplat.models.rays_and_noise_levels import denoised_channels
from diffsplat.pretrained.model_folders import (
    CONDITION_ENCODER,
    FEW_STEP_SOLVER,
    TEXT_COMPONENTS,
    TEXT_DENOISER,
    controlnet_folder,
    write_index,
)
from diffsplat.pretrained.network_folders import stored_class
from diffsplat.pretrained.release_catalogue import ControlKind, Prediction
from diffsplat.pretrained.schedulers import make_scheduler
from diffsplat.training.config_record import RECORD_FILE, read_record
from diffsplat.training.recipes.model_recipe import NETWORKS, SamplingRecipe
from diffsplat.training.run_folders import RunFolders
from diffsplat.training.run_outcome import atomic_folder
from diffsplat.training.stages.denoiser_configs import SMALL_SCHEDULE
from diffsplat.training.view_batches import selected_rows

_TEXT_FILES = (CONFIG_FILE, "model.safetensors", "tokenizer.json")
_TEXT_NETWORKS = ("reconstructor", "autoencoder", "denoiser")
_IMAGE_NETWORKS = ("image_encoder", "image_denoiser", "elevation_estimator")
_CONDITION_NETWORKS = (CONDITION_ENCODER, "elevation_estimator")
_CONTROLNETS = tuple(map(controlnet_folder, get_args(ControlKind)))
_TITLES = {False: "A small text-to-splats model", True: "A small model of text and images to splats"}


def export_model(target: Path, folders: RunFolders, sampling: SamplingRecipe, *, force: bool = False) -> int:
    """Write a model folder, complete or not at all, from the runs of all stages.

    It holds ``model_index.json``, a folder for each network, the scheduler, ``README.md`` with what the runs say about
    the training, ``CREDITS.md`` of every object in the data, and ``words.json`` with the nouns. Without a trained
    refiner the model has none, and without a denoiser of images it takes none.

    Returns:
        Bytes of all its files.

    Raises:
        FileNotFoundError: when a network is not trained yet.
        ValueError: when ``target`` exists without ``force``, or is not a folder, when the denoiser predicts something
            else, or when a refiner or a denoiser of text is of other latents, or the refiner was not trained up to
            the level that it is to take over at.
    """
    if target.exists() and not (force and target.is_dir()):
        raise InvalidInputError(f"{str(target)!r} exists already, expected a new one or force to replace it")
    with atomic_folder(target) as folder:
        _write(folder, folders, sampling)
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())


def _write(folder: Path, folders: RunFolders, sampling: SamplingRecipe) -> None:
    runs = _trained_runs(folders, sampling)
    defaults = sampling.defaults
    if "refiner" not in runs:
        defaults = replace(defaults, refined_below=0.0, refiner_guidance=1.0)
    for network, run in runs.items():
        weights = RELEASED_WEIGHTS_FILE if network == "elevation_estimator" else WEIGHTS_FILE
        _copy(run / "weights", folder / network, (CONFIG_FILE, weights))
    _check_prediction(folder, defaults.prediction)
    for network in ("refiner", TEXT_DENOISER):
        if network in runs:
            _check_channels(folder, network)
    if "refiner" in runs:
        _check_refiner_level(runs["refiner"], defaults.refined_below)
    _copy(folders.text_encoder, folder / "text_encoder", _TEXT_FILES)
    schedule = {"shift": sampling.shift} if defaults.prediction == "latents" else SMALL_SCHEDULE
    make_scheduler(sampling.sampler, schedule, defaults.prediction).save_pretrained(folder / "scheduler")
    takes_image = "image_denoiser" in runs or CONDITION_ENCODER in runs
    refined = {"refiner", CONDITION_ENCODER} <= set(runs)
    image_defaults = sampling.image_defaults(refined=refined) if takes_image else None
    components = [*TEXT_COMPONENTS, *(name for name in runs if name not in _TEXT_NETWORKS)]
    write_index(folder, components, defaults, image_defaults)
    rows = selected_rows(folders)
    (folder / "CREDITS.md").write_text(credits_page(rows), encoding="utf-8")
    words = TrainingVocabulary.of(rows)
    words.save(folder)
    if TEXT_DENOISER in runs:
        _words_of_text(runs[TEXT_DENOISER], folders).within(words).save(folder / TEXT_DENOISER)
    card = _model_card(_TITLES[takes_image], runs, licences_summary(rows))
    (folder / "README.md").write_text(card, encoding="utf-8")


def _trained_runs(folders: RunFolders, sampling: SamplingRecipe) -> dict[str, Path]:
    """Runs of the networks that the model consists of, by the networks' names."""
    runs = {network: folders.out / stage for stage, network in NETWORKS.items()}
    trained = {network for network, run in runs.items() if (run / "weights").is_dir()}
    names = [*_TEXT_NETWORKS, *trained.intersection((*_CONTROLNETS, TEXT_DENOISER, FEW_STEP_SOLVER))]
    if sampling.defaults.refined_below > 0 and "refiner" in trained:
        names.append("refiner")
    for needed, networks in (("image_denoiser", _IMAGE_NETWORKS), (CONDITION_ENCODER, _CONDITION_NETWORKS)):
        if needed in trained:
            names += [name for name in networks if name in trained]
    return {network: run for network, run in runs.items() if network in names}


def _words_of_text(run: Path, folders: RunFolders) -> TrainingVocabulary:
    """What the denoiser of text alone was trained on, in the folders that its run names."""
    data = read_record(run).get("folders", {}).get("data")
    if not data:
        raise MissingFileError(
            f"{str(run)!r} lacks its file {RECORD_FILE}, which says what it was trained on"
        )
    return TrainingVocabulary.of(selected_rows(replace(folders, data=tuple(data))))


def _check_prediction(folder: Path, prediction: Prediction) -> None:
    """Refuse a denoiser that predicts something else than the model's index would say.

    The embedded model's class of denoiser predicts latents, small UNets v.
    """
    kind = stored_class(folder / "denoiser")
    if (kind == MultiViewPixArt.__name__) != (prediction == "latents"):
        raise InvalidInputError(
            f"the denoiser is a {kind}, expected one that predicts {prediction}; of 'diffsplat train NAME' the export "
            "is 'export-NAME', and 'export' of mini"
        )


def _check_channels(folder: Path, network: str) -> None:
    """Refuse a network that works beside the denoiser on other latents than its."""
    found, expected = (
        denoised_channels(read_json(folder / name / CONFIG_FILE)) for name in (network, "denoiser")
    )
    if found != expected:
        name = network.replace("_", " ")
        raise InvalidInputError(f"the {name} denoises {found} channels, expected the denoiser's {expected}")


def _check_refiner_level(run: Path, refined_below: float) -> None:
    """Refuse a refiner that is to be used above its training levels."""
    network = read_record(run).get("stage", {}).get("network", {})
    greatest = float(network.get("greatest_level", 1.0))
    expected = f"at most the {greatest:g} that the refiner was trained up to"
    require(refined_below <= greatest, "refined_below", refined_below, expected)


def _copy(source: Path, target: Path, names: tuple[str, ...]) -> None:
    target.mkdir()
    for name in names:
        if not (source / name).is_file():
            raise MissingFileError(f"{str(source)!r} lacks its file {name}, expected a trained network")
        shutil.copyfile(source / name, target / name)


def _model_card(title: str, runs: Mapping[str, Path], licences: str) -> str:
    """Markdown page of what the runs of the networks say: configuration, steps, hours, last figures."""
    lines = [
        f"# {title}",
        "",
        "3D Gaussian splats by diffusing splat latents of four views. Trained by diffsplat on renders of",
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
