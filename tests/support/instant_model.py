"""A served model that takes no time."""

from collections.abc import Callable
from typing import Any

from diffsplat.geometry import ring_cameras
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.pipeline_output import GeneratedObject
from diffsplat.web.model_worker import ServedModel
from support.splat_figures import blocks


class Instant:
    """A model that has its object at hand."""

    def __init__(self, pipe: DiffSplatPipeline) -> None:
        self.models = {"instant": ServedModel("instant", pipe)}
        self._made = GeneratedObject(blocks(), ring_cameras(10.0, size=16), 10.0, "a figure", 0)

    def __call__(self, job: Any, advance: Callable[[int, int], None]) -> list[GeneratedObject]:
        advance(job.steps, job.steps)
        return [self._made]
