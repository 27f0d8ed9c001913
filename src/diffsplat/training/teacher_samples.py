"""What a guided model makes of noise in many steps, which a few-step solver learns to reach."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from diffsplat.data.object_sampling import EpochOrder
from diffsplat.errors import InvalidInputError, require_at_least
from diffsplat.geometry import ring_cameras
from diffsplat.models.rays_and_noise_levels import denoiser_rays
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
class SampleBatch:
    """Objects that the teacher made.

    Args:
        noise: ``[B, V, C, h, w]`` that it started from.
        latents: ``[B, V, C, h, w]`` that it arrived at.
        conditions: rays of the views, encoded captions, and the encoded empty prompt to guide away from.
    """

    noise: Tensor
    latents: Tensor
    conditions: Conditions


@dataclass(frozen=True)
class SampleSourceConfig(SourceConfig):
    """What a batch of the teacher's objects is made of.

    Args:
        teacher_steps: steps of the teacher.
        objects: how many it makes, of captions of the training objects; once, then they are read from disk.
        evaluation_objects: others, that figures are measured on.
        batch_size: objects of a batch.
        seed: of the captions and of the order.
    """

    teacher_steps: int = 20
    objects: int = 256
    evaluation_objects: int = 48
    batch_size: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(1, self, "teacher_steps", "objects", "evaluation_objects", "batch_size")
        require_at_least(0, self, "seed")

    def build(self, folders: StageFolders) -> "SampleSource":
        """The source of the teacher's objects.

        Raises:
            ValueError: when the teacher predicts something else than latents.
        """
        return SampleSource(self, folders)


class SampleSource:
    """Batches of the teacher's objects; a step's batch depends on the seed and its number alone."""

    def __init__(self, config: SampleSourceConfig, folders: StageFolders) -> None:
        self.config = config
        pipe = DiffSplatPipeline.from_pretrained(folders.teacher).to(caching_device())
        if pipe.defaults.prediction != "latents":
            raise InvalidInputError(
                f"the teacher {folders.teacher!r} has no denoiser that predicts latents, expected one like mini's"
            )
        texts = prompts_as_read(pipe, every_caption(folders))
        count = config.objects + config.evaluation_objects
        random = np.random.default_rng(config.seed)
        self._prompts = [texts[int(place)] for place in random.integers(len(texts), size=count)]
        self._order = EpochOrder(config.objects, config.seed)
        self._encoded = PromptTable.open(
            folders.out / "prompts",
            ["", *texts],
            lambda: cast(PromptEncoder, pipe.text_encoder),
            folder_digest(find_model(folders.teacher) / "text_encoder"),
        )
        folder = folders.out / "samples" / _fingerprint(folders.teacher, config, self._prompts)
        self._latents = sampled_latents(pipe, self._prompts, config.teacher_steps, folder)
        codec = pipe.autoencoder
        cameras = ring_cameras(pipe.defaults.elevation_deg, size=codec.image_size).for_objects(1)
        self._rays = denoiser_rays(cameras, codec.latent_size, codec.pixel_grid)

    def batch(self, step: int) -> SampleBatch:
        """Objects in shuffled epochs."""
        size = self.config.batch_size
        return self._take(self._order.rows(range(step * size, (step + 1) * size)))

    def evaluation(self) -> list[SampleBatch]:
        """Those that are not trained on."""
        first, size = self.config.objects, self.config.batch_size
        numbers = list(range(first, first + self.config.evaluation_objects))
        return [self._take(numbers[start : start + size]) for start in range(0, len(numbers), size)]

    def _take(self, numbers: Sequence[int]) -> SampleBatch:
        latents = self._latents[list(numbers)].float()
        count = len(numbers)
        texts = self._encoded([*(self._prompts[number] for number in numbers), *[""] * count])
        conditions = Conditions(
            self._rays.expand(count, *self._rays.shape[1:]),
            texts.take(slice(0, count)),
            negative=texts.take(slice(count, None)),
        )
        return SampleBatch(sample_noise(latents.shape[1:], numbers), latents, conditions)


def prompts_as_read(pipe: DiffSplatPipeline, captions: Sequence[str]) -> list[str]:
    """The captions as the teacher reads them, each once."""
    known = pipe.known_words
    return sorted(set(captions if known is None else map(known.caption, captions)))


def sample_noise(shape: Sequence[int], numbers: Sequence[int]) -> Tensor:
    """``[B, *shape]`` noise that the teacher starts objects of these numbers from."""
    return object_noise(tuple(shape), object_generators(tuple(numbers)))


def sampled_latents(pipe: DiffSplatPipeline, prompts: Sequence[str], steps: int, folder: Path) -> Tensor:
    """``[N, V, C, h, w]`` half-precision latents of an object a prompt, whose seed is the prompt's place in the list.

    They come from the cache in ``folder`` where it has them, or are made on from where a call stopped.
    """
    pipe.set_progress_bar_config(disable=True)
    pipe.few_step_solver = None
    pipe.text_denoiser = None  # solvers are fitted to the denoiser of everything

    def make(start: int) -> dict[str, Tensor]:
        numbers = range(start, min(start + _CHUNK, len(prompts)))
        parts = [numbers[first : first + _AT_ONCE] for first in range(0, len(numbers), _AT_ONCE)]
        return {"latents": torch.cat([latents_of(part) for part in parts]).half().cpu()}

    def latents_of(numbers: Sequence[int]) -> Tensor:
        pipe.objects_per_pass = len(numbers)
        noise = sample_noise(pipe.latent_shape, numbers)
        made = pipe([prompts[number] for number in numbers], latents=noise, steps=steps)
        return cast(Tensor, made.latents)

    chunks = cached_tensors(folder, range(0, len(prompts), _CHUNK), make, "samples")
    return torch.cat([chunk["latents"] for chunk in chunks])


def _fingerprint(teacher: str, config: SampleSourceConfig, prompts: Sequence[str]) -> str:
    """Changes with the teacher, its steps and the prompts."""
    parts = sorted(path for path in find_model(teacher).iterdir() if path.is_dir())
    digest = hashlib.sha256(b"".join(map(folder_digest, (find_model(teacher), *parts))))
    digest.update(json.dumps([config.teacher_steps, list(prompts)]).encode())
    return digest.hexdigest()[:16]
