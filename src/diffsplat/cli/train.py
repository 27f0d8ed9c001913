"""``diffsplat train``: one stage, or all stages of a model in order."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from diffsplat.io.file_access import STORAGE_ERRORS, explained_os_errors
from diffsplat.training.model_export import ExportConfig, ModelParts, export_model
from diffsplat.training.recipes import (
    AutoencoderRun,
    DiffusionRun,
    ReconstructionRun,
    RunConfig,
    autoencoder_mini,
    diffusion_mini,
    embedded_text_encoder,
    reconstruction_mini,
    refiner_mini,
    train,
)
from diffsplat.training.stage_chain import ChainConfig, chain_parts, train_chain
from diffsplat.training.trainer import DivergedError, Status

EXIT_DIVERGED = 1
EXIT_INTERRUPTED = 130
Data = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DIR [DIR ...]")]
Flat = tyro.conf.arg(name="")


def mini(data: Data, out: Path, config: Annotated[ChainConfig, Flat] = ChainConfig()) -> None:  # noqa: B008
    """Train the stages of the embedded model in order and write its folder, OUT/model.

    The same command goes on where it stopped.

    Args:
        data: Folders that diffsplat data wrote.
        out: Folder of the runs and the model.
        config: What the stages are trained with.
    """
    _finish(lambda: train_chain(config, data, out), out / "model")


def reconstruction(
    data: Data,
    out: Path,
    run: Annotated[ReconstructionRun, Flat] = reconstruction_mini(),  # noqa: B008
) -> None:
    """Train the reconstructor of the embedded model.

    Args:
        data: Folders that diffsplat data wrote.
        out: Folder of the run; the same command goes on where it stopped.
        run: What it is trained with.
    """
    _train(run.placed(data, out))


def autoencoder(
    data: Data,
    out: Path,
    reconstructor: Path,
    run: Annotated[AutoencoderRun, Flat] = autoencoder_mini(),  # noqa: B008
) -> None:
    """Train the autoencoder of the embedded model.

    Args:
        data: Folders that diffsplat data wrote.
        out: Folder of the run; the same command goes on where it stopped.
        reconstructor: Folder of the trained reconstructor, the weights of its run.
        run: What it is trained with.
    """
    _train(run.placed(data, out, reconstructor))


def diffusion(
    data: Data,
    out: Path,
    reconstructor: Path,
    autoencoder: Path,
    run: Annotated[DiffusionRun, Flat] = diffusion_mini(),  # noqa: B008
) -> None:
    """Train the denoiser of the embedded model.

    Args:
        data: Folders that diffsplat data wrote.
        out: Folder of the run; the same command goes on where it stopped.
        reconstructor: Folder of the trained reconstructor, the weights of its run.
        autoencoder: Folder of the trained autoencoder, the weights of its run.
        run: What it is trained with.
    """
    _train(run.placed(data, out, reconstructor, autoencoder))


def refiner(
    data: Data,
    out: Path,
    reconstructor: Path,
    autoencoder: Path,
    denoiser: Path,
    run: Annotated[DiffusionRun, Flat] = refiner_mini(),  # noqa: B008
) -> None:
    """Train the refiner of the embedded model, a second denoiser for low noise levels.

    Args:
        data: Folders that diffsplat data wrote.
        out: Folder of the run; the same command goes on where it stopped.
        reconstructor: Folder of the trained reconstructor, the weights of its run.
        autoencoder: Folder of the trained autoencoder, the weights of its run.
        denoiser: Folder of the trained denoiser, the weights of its run, whose latents are read.
        run: What it is trained with.
    """
    _train(run.refining(data, out, ModelParts(reconstructor, autoencoder, denoiser, run.source.text_encoder)))


def export(
    runs: Annotated[Path, tyro.conf.Positional],
    out: Path,
    data: Data,
    config: Annotated[ExportConfig, Flat] = ExportConfig(),  # noqa: B008
    force: bool = False,
) -> None:
    """Write a model folder from the weights that the stages have by now.

    Args:
        runs: Folder of the runs, the OUT of diffsplat train mini.
        out: The model folder to write.
        data: Folders that diffsplat data wrote, for the credits.
        config: How the model is sampled unless its user says otherwise.
        force: Replace an existing folder.
    """
    size = export_model(out, chain_parts(runs, embedded_text_encoder()), config, data, force=force)
    print(f"{out} ({size / 1e6:.1f} MB)")


def _train(run: RunConfig) -> None:
    _finish(lambda: train(run).status, run.trainer.out / "weights")


def _finish(work: Callable[[], Status], result: Path) -> None:
    """Run a training and say how it ended."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("diffsplat").setLevel(logging.INFO)
    try:
        with explained_os_errors(f"cannot write into {str(result.parent)!r}", STORAGE_ERRORS):
            status = work()
    except DivergedError as error:
        print(f"diffsplat: error: {error}", file=sys.stderr)
        raise SystemExit(EXIT_DIVERGED) from error
    match status:
        case "finished":
            print(result)
        case "out_of_time":
            print("Time is up; the same command goes on from here.")
        case "interrupted":
            print("diffsplat: interrupted; the same command goes on from here", file=sys.stderr)
            raise SystemExit(EXIT_INTERRUPTED)


COMMANDS: dict[str, Callable[..., None]] = {
    "mini": mini,
    "reconstruction-mini": reconstruction,
    "autoencoder-mini": autoencoder,
    "diffusion-mini": diffusion,
    "refiner-mini": refiner,
    "export": export,
}
