"""The models of a server, and generating the objects of its jobs with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from diffsplat.errors import InvalidInputError, listed
from diffsplat.pipelines.model_opening import ModelChoice, OpeningOptions
from diffsplat.pipelines.pipeline_output import GeneratedObject
from diffsplat.pipelines.splat_pipeline import DiffSplatPipeline
from diffsplat.pretrained.release_catalogue import ControlKind
from diffsplat.web.job_queue import IMAGE_FIELDS, Advance, Job


@dataclass(frozen=True)
class ServedModel:
    """A model in memory.

    Args:
        name: what clients call it.
        pipe: on its device.
        controls: kinds of the control maps that it follows, in their order.
        variants: names of the same model that take an ``image`` or a ``control`` map.
    """

    name: str
    pipe: DiffSplatPipeline
    controls: tuple[ControlKind, ...] = ()
    variants: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def reasons(self) -> dict[str, str]:
        """Why an input is not accepted, and what accepts it, by its name; those that are accepted are absent."""
        refused: dict[str, str] = {}
        if not self.pipe.takes_image:
            refused["image"] = f"the model {self.name} takes no image{self._variants('image')}"
        if not self.pipe.takes_control:
            refused["control"] = f"the model {self.name} follows no control map{self._variants('control')}"
        if self.pipe.image_prompt_encoder is None:
            refused["ip_adapter_image"] = (
                f"the model {self.name} has no IP-Adapter; 'diffsplat serve --model sd15 --ip-adapter' has one"
            )
        return refused

    @property
    def most_images(self) -> int:
        """How many images one request may have."""
        return len(IMAGE_FIELDS) - len(self.reasons) + max(0, len(self.controls) - 1)

    def _variants(self, name: str) -> str:
        variants = self.variants.get(name)
        return f", unlike {listed(variants)}" if variants else ""


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
    served = [
        ServedModel(choice.label, choice.taking_images().open(), choice.controls, choice.variants())
        for choice in choices
    ]
    return ModelWorker.of(served)
