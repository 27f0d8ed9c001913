"""Trajectories of a guided teacher from noise to objects, cut into windows that a student crosses in one step each.

Piecewise rectified flow (Yan et al. 2024, "PeRFlow", section 3): in every window the student learns the straight line
from where the teacher enters it to where the teacher leaves it, guidance included.
"""

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from diffsplat.data.object_sampling import EpochOrder
from diffsplat.errors import InvalidInputError, require_at_least
from diffsplat.geometry import ring_cameras
from diffsplat.models.rays_and_noise_levels import TIMESTEPS, denoiser_rays
from diffsplat.models.text.text_condition import PromptEncoder
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.denoising_loop import object_generators, object_noise
from diffsplat.pipelines.guidance import Conditions
from diffsplat.pretrained.model_folders import find_model
from diffsplat.training.prompt_table import PromptTable
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.stage_interface import SourceConfig
from diffsplat.training.tensor_cache import cached_tensors, caching_device, folder_digest
from diffsplat.training.view_batches import every_caption

_CHUNK = 64
_AT_ONCE = 8


@dataclass(frozen=True)
class WindowBatch:
    """Trajectories of objects.

    Args:
        latents: ``[B, W + 1, V, C, h, w]`` where the teacher is at the bounds of the windows, noise first.
        levels: ``[B, W + 1]`` noise levels of the bounds, 1 to 0, the same for all.
        conditions: rays of the views and encoded captions.
    """

    latents: Tensor
    levels: Tensor
    conditions: Conditions


@dataclass(frozen=True)
class WindowSourceConfig(SourceConfig):
    """What a batch of trajectories is made of.

    Args:
        windows: steps that the student takes; their levels are those of the teacher's scheduler for as many steps.
        substeps: steps of the teacher in a window.
        objects: trajectories that are made, of captions of the training objects; once, then read from disk.
        evaluation_objects: others, that figures are measured on.
        batch_size: objects of a batch.
        seed: of the captions, of the noise and of the order.
    """

    windows: int = 4
    substeps: int = 6
    objects: int = 2_048
    evaluation_objects: int = 64
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(1, self, "windows", "substeps", "objects", "evaluation_objects", "batch_size")
        require_at_least(0, self, "seed")

    def build(self, folders: StageFolders) -> "WindowSource":
        """The source of trajectories.

        Raises:
            ValueError: when the teacher predicts something else than latents.
        """
        return WindowSource(self, folders)


class WindowSource:
    """Batches of trajectories; a step's batch depends on the seed and its number alone."""

    def __init__(self, config: WindowSourceConfig, folders: StageFolders) -> None:
        self.config = config
        pipe = DiffSplatPipeline.from_pretrained(folders.teacher).to(caching_device())
        if pipe.defaults.prediction != "latents":
            raise InvalidInputError(
                f"the teacher {folders.teacher!r} has no denoiser that predicts latents, expected one like mini's"
            )
        texts = distilled_prompts(pipe, every_caption(folders))
        count = config.objects + config.evaluation_objects
        self._order = EpochOrder(config.objects, config.seed)
        random = np.random.default_rng(config.seed)
        prompts = [texts[int(place)] for place in random.integers(len(texts), size=count)]
        encoded = PromptTable.open(
            folders.out / "prompts",
            texts,
            lambda: cast(PromptEncoder, pipe.text_encoder),
            folder_digest(find_model(folders.teacher) / "text_encoder"),
        )
        self._table = window_table(pipe, folders, config, prompts, encoded)

    def batch(self, step: int) -> WindowBatch:
        """Trajectories in shuffled epochs."""
        size = self.config.batch_size
        return self._table.take(self._order.rows(range(step * size, (step + 1) * size)))

    def evaluation(self) -> list[WindowBatch]:
        """Those that are not trained on."""
        first, size = self.config.objects, self.config.batch_size
        numbers = list(range(first, first + self.config.evaluation_objects))
        return [self._table.take(numbers[start : start + size]) for start in range(0, len(numbers), size)]


@dataclass(frozen=True)
class WindowTable:
    """Trajectories of many objects.

    Args:
        latents: ``[N, W + 1, V, C, h, w]`` half precision, noise first.
        levels: ``[W + 1]`` noise levels of the bounds.
        rays: ``[1, V, 6, h, w]``.
        prompts: ``N``.
        encoded: these.
    """

    latents: Tensor
    levels: Tensor
    rays: Tensor
    prompts: Sequence[str]
    encoded: PromptTable

    def take(self, numbers: Sequence[int]) -> WindowBatch:
        """A batch of some of them."""
        chosen = list(numbers)
        rays = self.rays.expand(len(chosen), *self.rays.shape[1:])
        text = self.encoded([self.prompts[number] for number in chosen])
        return WindowBatch(
            self.latents[chosen].float(), self.levels.expand(len(chosen), -1), Conditions(rays, text)
        )


def distilled_prompts(pipe: DiffSplatPipeline, captions: Sequence[str]) -> list[str]:
    """The captions as the teacher reads them, each once."""
    known = pipe.known_words
    return sorted(set(captions if known is None else map(known.caption, captions)))


def window_table(
    pipe: DiffSplatPipeline,
    folders: StageFolders,
    config: WindowSourceConfig,
    prompts: Sequence[str],
    encoded: PromptTable,
) -> WindowTable:
    """Trajectories of the teacher ``pipe``, from the cache where it has them, or continued where a call stopped.

    There is one an object and prompt; the seed is the place of the prompt in the list.
    """
    pipe.set_progress_bar_config(disable=True)
    levels = window_levels(pipe, config.windows)
    folder = folders.out / "trajectories" / _fingerprint(folders.teacher, config, prompts)

    def make(start: int) -> dict[str, Tensor]:
        numbers = range(start, min(start + _CHUNK, len(prompts)))
        parts = [numbers[first : first + _AT_ONCE] for first in range(0, len(numbers), _AT_ONCE)]
        made = torch.cat([trajectories(pipe, prompts, part, levels, config.substeps) for part in parts])
        return {"latents": made.half()}

    chunks = cached_tensors(folder, range(0, len(prompts), _CHUNK), make, "trajectories")
    codec = pipe.autoencoder
    cameras = ring_cameras(pipe.defaults.elevation_deg, size=codec.image_size).for_objects(1)
    rays = denoiser_rays(cameras, codec.latent_size, codec.pixel_grid)
    latents = torch.cat([chunk["latents"] for chunk in chunks])
    return WindowTable(latents, torch.tensor(levels), rays, prompts, encoded)


def window_levels(pipe: DiffSplatPipeline, windows: int) -> list[float]:
    """Noise levels that bound the windows, 1 to 0: where the model's scheduler takes as many steps."""
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler.set_timesteps(windows)
    return [*(float(timestep) / TIMESTEPS for timestep in scheduler.timesteps), 0.0]


def trajectories(
    pipe: DiffSplatPipeline,
    prompts: Sequence[str],
    numbers: Sequence[int],
    levels: Sequence[float],
    substeps: int,
) -> Tensor:
    """``[B, W + 1, V, C, h, w]`` latents of a guided model at the bounds of windows.

    Args:
        pipe: the model, with its own guidance.
        prompts: of all objects.
        numbers: of those that are made; also their seeds.
        levels: bounds of the windows, 1 to 0.
        substeps: even steps in a window.
    """
    noise = object_noise(pipe.latent_shape, object_generators(tuple(numbers)))
    kept: list[Tensor] = [noise]

    def keep(_pipe: Any, step: int, _timestep: Tensor, tensors: dict[str, Tensor]) -> None:
        if (step + 1) % substeps == 0:
            kept.append(tensors["latents"].cpu())

    steps = [
        TIMESTEPS * (start + (end - start) * part / substeps)
        for start, end in pairwise(levels)
        for part in range(substeps)
    ]
    pipe.objects_per_pass = len(numbers)
    pipe(
        [prompts[number] for number in numbers],
        latents=noise,
        timesteps=tuple(steps),
        callback_on_step_end=keep,
    )
    return torch.stack(kept, dim=1)


def _fingerprint(teacher: str, config: WindowSourceConfig, prompts: Sequence[str]) -> str:
    """Changes with the teacher, with the windows and with the prompts."""
    parts = sorted(path for path in find_model(teacher).iterdir() if path.is_dir())
    digest = hashlib.sha256(b"".join(map(folder_digest, (find_model(teacher), *parts))))
    digest.update(json.dumps([config.windows, config.substeps, list(prompts)]).encode())
    return digest.hexdigest()[:16]
