"""The stages of a model in order, from data to a model folder."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from diffsplat.training.model_export import ExportConfig, ModelParts, export_model
from diffsplat.training.recipes import (
    AutoencoderRun,
    DiffusionRun,
    ReconstructionRun,
    RunConfig,
    autoencoder_mini,
    diffusion_mini,
    reconstruction_mini,
    refiner_mini,
    train,
)
from diffsplat.training.trainer import Status, is_finished

logger = logging.getLogger(__name__)

WhenTimeIsUp = Literal["stop", "next"]


@dataclass(frozen=True)
class ChainConfig:
    """What the stages of a model are trained with.

    Args:
        reconstruction: first stage.
        autoencoder: second stage.
        diffusion: third stage.
        refiner: fourth stage, a second denoiser for low noise levels.
        export: the model folder; without a refiner there, none is trained.
        when_time_is_up: what a stage's ``max_minutes`` ends: the whole chain, which the next call continues,
            or that stage, whose weights the next stages then use as they are.
    """

    reconstruction: ReconstructionRun = field(default_factory=reconstruction_mini)
    autoencoder: AutoencoderRun = field(default_factory=autoencoder_mini)
    diffusion: DiffusionRun = field(default_factory=diffusion_mini)
    refiner: DiffusionRun = field(default_factory=refiner_mini)
    export: ExportConfig = field(default_factory=ExportConfig)
    when_time_is_up: WhenTimeIsUp = "stop"


def train_chain(config: ChainConfig, data: tuple[Path, ...], out: Path) -> Status:
    """Train what is not yet trained in ``out / stage``, then write ``out / "model"``.

    Returns:
        ``finished`` when the model folder is written.
    """
    text_encoder = config.diffusion.source.text_encoder
    parts = replace(
        chain_parts(out, text_encoder),
        refiner=out / "refiner" / "weights" if config.export.refiner else None,
    )
    runs: dict[str, Callable[[], RunConfig]] = {
        "reconstruction": lambda: config.reconstruction.placed(data, out / "reconstruction"),
        "autoencoder": lambda: config.autoencoder.placed(data, out / "autoencoder", parts.reconstructor),
        "diffusion": lambda: config.diffusion.placed(
            data, out / "diffusion", parts.reconstructor, parts.autoencoder
        ),
        "refiner": lambda: config.refiner.refining(data, out / "refiner", parts),
    }
    if not config.export.refiner:
        del runs["refiner"]
    for name, place in runs.items():
        run = place()
        if is_finished(run.trainer):
            logger.info("%s is trained already", name)
            continue
        outcome = train(run)
        if outcome.status == "interrupted":
            return "interrupted"
        if outcome.status == "out_of_time" and config.when_time_is_up == "stop":
            return "out_of_time"
    export_model(out / "model", chain_parts(out, text_encoder), config.export, data, force=True)
    return "finished"


def chain_parts(out: Path, text_encoder: Path) -> ModelParts:
    """Where :func:`train_chain` leaves the networks of a model."""
    refiner = out / "refiner" / "weights"
    return ModelParts(
        reconstructor=out / "reconstruction" / "weights",
        autoencoder=out / "autoencoder" / "weights",
        denoiser=out / "diffusion" / "weights",
        text_encoder=text_encoder,
        refiner=refiner if refiner.is_dir() else None,
    )
