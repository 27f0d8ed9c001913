"""Trainings in processes of their own that start in a moment: forked from one that has imported everything."""

import multiprocessing
import sys
from multiprocessing.context import ForkServerContext, ForkServerProcess

from diffsplat.cli.main import main

_IMPORTED_ONCE = (
    "diffsplat.cli.train",
    "accelerate",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.autoencoders.autoencoder_tiny",
    "diffusers.models.controlnets.controlnet",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.schedulers.scheduling_dpmsolver_multistep",
    "transformers.models.dinov2_with_registers.modeling_dinov2_with_registers",
)


def fork_server() -> ForkServerContext:
    """What starts the processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED_ONCE))
    return context


def start_training(server: ForkServerContext, words: list[str]) -> ForkServerProcess:
    """Start a command of diffsplat; the process ends with its exit code."""
    process = server.Process(target=_run, args=(words,))
    process.start()
    return process


def _run(words: list[str]) -> None:
    sys.exit(main(words))
