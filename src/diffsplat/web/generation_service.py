"""The service behind the API, apart from HTTP: options, condition images, jobs, files."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

from PIL import Image
from torch import Tensor

from diffsplat.errors import InvalidInputError, require
from diffsplat.images.image_cutout_and_framing import ImageSource
from diffsplat.images.image_framing_options import ImageFraming
from diffsplat.io.image_files import to_pixels
from diffsplat.pipelines.generation_options import ResolvedGeneration
from diffsplat.pipelines.image_and_control_conditions import ConditionImages, condition_image
from diffsplat.web.api_schemas import JobOptions, JobRequest
from diffsplat.web.job_queue import IMAGE_FIELDS, Job, JobKeeper, JobQueue
from diffsplat.web.model_worker import ModelWorker, ServedModel
from diffsplat.web.request_bodies import BodyReader
from diffsplat.web.result_files import FileMaker
from diffsplat.web.server_limits import Limits
from diffsplat.web.uploaded_images import decode_image

CUT_OUT_SIZE = 256
_STOP_S = 60.0


class Service:
    """Jobs and files of one server.

    Args:
        worker: has the models.
        limits: what is allowed.
        keeper: keeps jobs when the process ends.
    """

    def __init__(
        self, worker: ModelWorker, limits: Limits | None = None, keeper: JobKeeper | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.models: Mapping[str, ServedModel] = worker.models
        self.jobs = JobQueue(worker, self.limits, keeper)
        most_images = max(model.most_images for model in self.models.values())
        self.bodies = BodyReader(self.limits, IMAGE_FIELDS, most_images)
        self.files = FileMaker(lambda job: self.jobs.find(job) is not None)
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="images")

    def stop(self) -> None:
        """Accept no more jobs and cancel unfinished ones; to be called in the server's own thread."""
        self.jobs.stop()
        self.bodies.hang_up()

    def close(self) -> bool:
        """End all threads; returns whether they did."""
        self.jobs.stop()
        self._preparing.shutdown(wait=True, cancel_futures=True)
        self.files.close()
        return self.jobs.join(_STOP_S)

    async def submit(self, options: JobRequest, files: Mapping[str, Sequence[bytes]]) -> Job:
        """Put a job into the queue.

        Args:
            options: what to generate.
            files: encoded images, by their fields.

        Raises:
            ValueError: for options outside the limits, or images that cannot be used.
            QueueFullError: when there is no place.
        """
        model = self._model(options.model)
        generation = self._resolved(options, model, files)
        for name in files:
            if name in model.reasons:
                raise InvalidInputError(f"{name} was given, but {model.reasons[name]}")
        self.jobs.require_place()
        loop = asyncio.get_running_loop()
        images = await loop.run_in_executor(
            self._preparing, self._prepare, model, dict(files), options.framing()
        )
        return self.jobs.submit(model.name, generation, images)

    async def cut_out(self, data: bytes, framing: ImageFraming) -> bytes:
        """PNG of an image's object as a model would get it.

        Raises:
            ValueError: when the image cannot be used, or no model takes one.
            ImportError: when a background has to be removed and rembg is not installed.
        """
        if not any(model.pipe.takes_image for model in self.models.values()):
            raise InvalidInputError("no served model takes an image, expected one such as mini or sd15:image")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._preparing, self._cut_out, data, framing)

    async def condition_png(self, job: Job, name: str) -> bytes | None:
        """PNG of an image that a job was made from, at the model's size; None where there is none."""
        image = job.named_images.get(name)
        if image is None:
            return None
        return await asyncio.get_running_loop().run_in_executor(self._preparing, _png, image)

    def _model(self, name: str | None) -> ServedModel:
        if name is None:
            return next(iter(self.models.values()))
        require(name in self.models, "the model", repr(name), f"one of: {', '.join(self.models)}")
        return self.models[name]

    def _resolved(
        self, options: JobOptions, model: ServedModel, given: Collection[str]
    ) -> ResolvedGeneration:
        defaults = model.pipe.defaults_for(conditioned=bool(given))
        resolved = options.generation().resolved(defaults, from_image="image" in given)
        model.pipe.require_adapters(resolved.lora_scales or ())
        objects = "count" if len(resolved.prompts) == 1 else "the number of objects"
        for name, value, most in (
            ("steps", resolved.steps, self.limits.max_steps),
            (objects, resolved.count * len(resolved.prompts), self.limits.max_count),
        ):
            require(value <= most, name, value, f"at most {most}")
        return resolved

    def _prepare(
        self, model: ServedModel, files: Mapping[str, Sequence[bytes]], framing: ImageFraming
    ) -> ConditionImages:
        decoded: dict[str, list[ImageSource]] = {
            name: [decode_image(data, name, self.limits) for data in several]
            for name, several in files.items()
        }
        (image,), (prompt,) = (decoded.get(name, [None]) for name in ("image", "ip_adapter_image"))
        return model.pipe.prepare(image, decoded.get("control"), framing, prompt)

    def _cut_out(self, data: bytes, framing: ImageFraming) -> bytes:
        decoded = decode_image(data, "image", self.limits)
        return _png(condition_image(decoded, CUT_OUT_SIZE, cut_out=True, framing=framing).image)


def _png(image: Tensor) -> bytes:
    file = BytesIO()
    Image.fromarray(to_pixels(image)).save(file, format="PNG")
    return file.getvalue()
