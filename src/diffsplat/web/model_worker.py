"""The models of a server, and generating the objects of its jobs with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from diffsplat.errors import InvalidInputError
from diffsplat.pipelines.model_opening import ModelChoice, OpeningOptions
from diffsplat.pipelines.splat_output import GeneratedObject
from diffsplat.pipelines.splat_pipeline import DiffSplatPipeline
from diffsplat.pretrained.release_catalogue import ControlKind, only_kind
from diffsplat.web.job_queue import Advance, Job


@dataclass(frozen=True)
class ServedModel:
    """A model in memory.

    Args:
        name: what clients call it.
        pipe: on its device.
        control: kind of control map that it follows.
    """

    name: str
    pipe: DiffSplatPipeline
    control: ControlKind | None = None

    @property
    def reasons(self) -> dict[str, str]:
        """Why an input is not accepted, by its name; those that are accepted are absent."""
        refused: dict[str, str] = {}
        if not self.pipe.takes_image:
            refused["image"] = f"the model {self.name} takes text only"
        if not self.pipe.takes_control:
            refused["control"] = f"the model {self.name} has no ControlNet"
        return refused


@dataclass(frozen=True)
class ModelWorker:
    """Generates the objects of jobs with the models in memory; only one thread may use it.

    Args:
        models: by name, at least one; the first is the default.
    """

    models: Mapping[str, ServedModel] = field(default_factory=dict)

    @classmethod
    def of(cls, models: Sequence[ServedModel]) -> Self:
        """With models under their own names.

        Raises:
            ValueError: for two of one name, or none.
        """
        named = {model.name: model for model in models}
        if not models or len(named) < len(models):
            raise InvalidInputError("expected at least one model, and each name once")
        return cls(named)

    def __call__(self, job: Job, advance: Advance) -> Sequence[GeneratedObject]:
        """Generate the objects of a job; an exception from ``advance`` ends it."""
        advance(0, job.steps)
        return self.models[job.model].pipe.generate(job.generation, job.images, advance).objects()


def load_models(names: Sequence[str], options: OpeningOptions) -> ModelWorker:
    """Load models onto a device.

    Args:
        names: of a model or its folder; variants follow colons: ``sd15:image``, ``sd15:image:depth``.
        options: how they are opened.

    Raises:
        ValueError, FileNotFoundError: when there is no such model.
    """
    choices = [ModelChoice.parse(name, options) for name in names]
    if options.ip_adapter is not None:
        raise InvalidInputError("the API takes no --ip-adapter, expected none")
    for choice in choices:
        if len(choice.controls) > 1:
            raise InvalidInputError(f"the model {choice.label!r} follows several control maps, expected one")
    served = [
        ServedModel(choice.label, choice.taking_images().open(), only_kind(choice.controls))
        for choice in choices
    ]
    return ModelWorker.of(served)
