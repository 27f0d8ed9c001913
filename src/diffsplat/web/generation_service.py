"""What the API does, apart from HTTP: orders from options, pictures made ready, jobs, files."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

from PIL import Image

from diffsplat.errors import InvalidInputError
from diffsplat.io.image_files import to_pixels
from diffsplat.pipelines.generation import GenerationRequest
from diffsplat.pipelines.image_conditioning import read_picture
from diffsplat.pipelines.splat_pipeline import Pictures
from diffsplat.web.api_schemas import JobOptions
from diffsplat.web.job_queue import Job, JobQueue
from diffsplat.web.model_worker import GeneratedObject, GenerationOrder, Generator, ServedModel
from diffsplat.web.request_bodies import BodyReader
from diffsplat.web.result_files import FileMaker
from diffsplat.web.server_limits import Limits
from diffsplat.web.uploaded_images import decode_picture

ServedJob = Job[GenerationOrder, GeneratedObject]

PICTURE_FIELDS = ("image", "control")
CUT_OUT_SIZE = 256
_STOP_S = 60.0


class Service:
    """Jobs and files of one server.

    Args:
        generator: the models.
        limits: what is allowed.
    """

    def __init__(self, generator: Generator, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.models: Mapping[str, ServedModel] = generator.models
        self.jobs: JobQueue[GenerationOrder, GeneratedObject] = JobQueue(generator, self.limits)
        self.bodies = BodyReader(self.limits, PICTURE_FIELDS, self._pictures_taken())
        self.files = FileMaker(lambda job: self.jobs.find(job) is not None)
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="pictures")

    def stop(self) -> None:
        """Take nothing more and cancel what is not finished; to be called in the server's own thread."""
        self.jobs.stop()
        self.bodies.hang_up()

    def close(self) -> bool:
        """End all threads; tells whether they did."""
        self.jobs.stop()
        self._preparing.shutdown(wait=True, cancel_futures=True)
        self.files.close()
        return self.jobs.join(_STOP_S)

    async def submit(self, options: JobOptions, files: Mapping[str, bytes]) -> ServedJob:
        """Put an order into the queue.

        Args:
            options: what to generate.
            files: encoded pictures, by ``image`` and ``control``.

        Raises:
            ValueError: for options outside the limits, or pictures that cannot be used.
            QueueFullError: when there is no place.
        """
        model = self._model(options.model)
        request = self._request(options, model, from_image="image" in files)
        for name in files:
            if name in model.reasons:
                raise InvalidInputError(f"{model.reasons[name]}, expected no {name}")
        self.jobs.require_place()
        loop = asyncio.get_running_loop()
        pictures = await loop.run_in_executor(self._preparing, self._prepare, model, dict(files))
        estimate = pictures.image is not None and options.elevation is None
        return self.jobs.submit(GenerationOrder(model.name, request, pictures, estimate))

    async def cut_out(self, data: bytes) -> bytes:
        """PNG of a picture's object as a model would see it.

        Raises:
            ValueError: when the picture cannot be used, or no model takes one.
            ImportError: when a background has to be removed and rembg is not installed.
        """
        if not any(model.pipe.takes_image for model in self.models.values()):
            raise InvalidInputError("no model of this server is shown pictures")
        return await asyncio.get_running_loop().run_in_executor(self._preparing, self._cut_out, data)

    def _pictures_taken(self) -> int:
        """Most pictures that any model has use for in one request."""
        return max(len(PICTURE_FIELDS) - len(model.reasons) for model in self.models.values())

    def _model(self, name: str | None) -> ServedModel:
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise InvalidInputError(f"the model is {name!r}, expected one of: {', '.join(self.models)}")
        return self.models[name]

    def _request(self, options: JobOptions, model: ServedModel, *, from_image: bool) -> GenerationRequest:
        defaults = model.pipe.defaults
        steps = defaults.steps if options.steps is None else options.steps
        for name, value, most in (
            ("steps", steps, self.limits.max_steps),
            ("count", options.count, self.limits.max_count),
        ):
            if value > most:
                raise InvalidInputError(f"{name} is {value}, expected at most {most}")
        return GenerationRequest(
            prompts=(options.prompt,),
            negative_prompt=options.negative_prompt,
            seed=options.seed,
            steps=steps,
            guidance=defaults.guidance if options.guidance is None else options.guidance,
            count=options.count,
            elevation_deg=defaults.elevation_deg if options.elevation is None else options.elevation,
            from_image=from_image,
            least_guidance=options.least_guidance,
            control_scale=options.control_scale,
            guess_mode=options.guess_mode,
        )

    def _prepare(self, model: ServedModel, files: dict[str, bytes]) -> Pictures:
        decoded: dict[str, Image.Image] = {
            name: decode_picture(data, name, self.limits) for name, data in files.items()
        }
        return model.pipe.prepare(decoded.get("image"), decoded.get("control"))

    def _cut_out(self, data: bytes) -> bytes:
        picture = decode_picture(data, "image", self.limits)
        prepared = read_picture(picture, CUT_OUT_SIZE, cut_out=True)
        file = BytesIO()
        Image.fromarray(to_pixels(prepared)).save(file, format="PNG")
        return file.getvalue()
