"""The routes of the REST API and their schema."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Request
from fastapi.responses import Response, StreamingResponse

from diffsplat import __version__
from diffsplat.io.splat_suffixes import WRITABLE_SUFFIXES
from diffsplat.pipelines.prompt_file_names import slug
from diffsplat.web.api_schemas import (
    Catalogue,
    CutOutRequest,
    FileKindView,
    Health,
    JobRequest,
    JobView,
    LimitsView,
    ModelView,
    Problem,
)
from diffsplat.web.generation_service import Service
from diffsplat.web.job_queue import IMAGE_FIELDS, REPEATABLE_FIELD, Job
from diffsplat.web.result_files import FILE_KINDS, FileKind

_HEARTBEAT_S = 15.0

router = APIRouter(prefix="/api")

_REFUSALS: dict[int, str] = {
    400: "the request is broken",
    401: "the token is missing or wrong",
    403: "another host or site was named",
    404: "there is no such job or file, or no longer",
    408: "the request took too long to arrive",
    413: "too many bytes or pixels",
    415: "another content type was expected",
    422: "the request asks for something that cannot be done",
    429: "the queue is full",
    503: "the server is stopping or too busy",
    507: "the server's disk is full",
}


def _service(request: Request) -> Service:
    return request.app.state.service


ServiceOf = Annotated[Service, Depends(_service)]
JobId = Annotated[str, Path(max_length=100, description="from POST /api/jobs")]


def _responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Problem, "description": _REFUSALS[code]} for code in (401, 403, *codes)}


def _body_of(model: type[Any], files: tuple[str, ...]) -> dict[str, Any]:
    """The schema of a body that is JSON or a form with files."""
    schema = model.model_json_schema()
    form = {**schema, "properties": dict(schema["properties"])}
    for name in files:
        repeated = "; of several control maps one after the other" if name == REPEATABLE_FIELD else ""
        described = {"type": "string", "format": "binary", "description": f"PNG, JPEG or WebP{repeated}"}
        form["properties"][name] = described
    content = {"application/json": {"schema": schema}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


@router.get("/health", summary="Whether the server works", responses={})
async def health(request: Request, service: ServiceOf) -> Health:
    """Answered without the token."""
    return Health(
        status="ok" if service.jobs.alive else "stopping",
        version=__version__,
        waiting=service.jobs.waiting,
        token_needed=request.app.state.token_needed,
    )


@router.get("/models", summary="Models, limits and kinds of files", responses=_responses())
async def models(service: ServiceOf) -> Catalogue:
    """What may be asked for: which model takes an image or a control map, and why another does not."""
    return Catalogue(
        models=[ModelView.of(model) for model in service.models.values()],
        limits=LimitsView.of(service.limits),
        files=[
            FileKindView(
                suffix=kind.suffix, description=kind.description, splats=kind.suffix in WRITABLE_SUFFIXES
            )
            for kind in FILE_KINDS.values()
        ],
    )


@router.post(
    "/jobs",
    status_code=201,
    summary="Generate objects",
    responses=_responses(400, 408, 413, 415, 422, 429, 503, 507),
    openapi_extra=_body_of(JobRequest, IMAGE_FIELDS),
)
async def create_job(request: Request, service: ServiceOf, response: Response) -> JobView:
    """Put a job into the queue. Images come in base64 (JSON) or as files (multipart/form-data)."""
    async with service.bodies.read(request, JobRequest) as body:
        job = await service.submit(body.options, body.images)
    response.headers["location"] = f"/api/jobs/{job.id}"
    return _view(service, job)


@router.get("/jobs", summary="All jobs", responses=_responses())
async def list_jobs(service: ServiceOf) -> list[JobView]:
    """Finished ones in the order of their ends, then those that run or wait."""
    return [_view(service, job) for job in service.jobs.all()]


@router.get("/jobs/{job_id}", summary="A job as it is now", responses=_responses(404, 422))
async def read_job(job_id: JobId, service: ServiceOf) -> JobView:
    """Its place in the queue, its progress, its results."""
    return _view(service, _found(service, job_id))


@router.delete("/jobs/{job_id}", summary="Cancel or forget a job", responses=_responses(404, 422))
async def cancel_job(job_id: JobId, service: ServiceOf) -> JobView:
    """End a job that waits or runs, with the step that is being computed; forget one that is finished."""
    job = service.jobs.cancel(job_id)
    if job is None:
        raise _unknown(job_id)
    return _view(service, job)


@router.get(
    "/jobs/{job_id}/events",
    summary="A job's progress as server-sent events",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
            "description": "an event 'job' after every change, its data the job; the stream ends with the job",
        },
        **_responses(404, 422),
    },
)
async def job_events(job_id: JobId, service: ServiceOf) -> StreamingResponse:
    """The job as it is now, and again after every change, until it is finished."""
    _found(service, job_id)
    headers = {"x-accel-buffering": "no"}
    return StreamingResponse(_events(service, job_id), media_type="text/event-stream", headers=headers)


@router.get(
    "/jobs/{job_id}/results/{number}.{format}",
    summary="A file of an object",
    response_class=Response,
    responses={
        200: {
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            "description": "the file",
        },
        **_responses(404, 422, 503, 507),
    },
)
async def result_file(
    job_id: JobId,
    number: Annotated[str, Path(max_length=100, description="of the object, from 0")],
    format: Annotated[str, Path(max_length=100, description="one of the files of GET /api/models")],  # noqa: A002
    service: ServiceOf,
) -> Response:
    """Splats in any format that is written, a mesh (``mesh.glb``), an image (``png``), or a turntable.

    A turntable is ``mp4``, ``gif`` or ``webp``.
    """
    job = _found(service, job_id)
    index, kind = _named_file(job, f"{number}.{format}")
    return await _file_response(service, job, index, kind)


@router.get(
    "/jobs/{job_id}/images/{name}.png",
    summary="An image that a job is made from",
    response_class=Response,
    responses={
        200: {
            "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
            "description": "at the model's size",
        },
        **_responses(404, 422),
    },
)
async def condition_image(
    job_id: JobId,
    name: Annotated[str, Path(max_length=100, description="of the job's images")],
    service: ServiceOf,
) -> Response:
    """As the model sees it; a request with it and ``cutout`` none generates the same object."""
    image = await service.condition_png(_found(service, job_id), name)
    if image is None:
        raise HTTPException(404, f"the job has no image {name[:40]!r}")
    return Response(image, media_type="image/png")


@router.post(
    "/cutouts",
    summary="Preview of the object in an image",
    response_class=Response,
    responses={
        200: {
            "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
            "description": "input of a model",
        },
        **_responses(400, 408, 413, 415, 422, 503, 507),
    },
    openapi_extra=_body_of(CutOutRequest, ("image",)),
)
async def cut_out(request: Request, service: ServiceOf) -> Response:
    """The object cut out, centred, on white."""
    async with service.bodies.read(request, CutOutRequest) as body:
        if "image" not in body.images:
            raise HTTPException(422, "image is missing")
        image = await service.cut_out(body.images["image"][0], body.options.framing())
    return Response(image, media_type="image/png")


def _found(service: Service, job_id: str) -> Job:
    job = service.jobs.find(job_id)
    if job is None:
        raise _unknown(job_id)
    return job


def _unknown(job_id: str) -> HTTPException:
    return HTTPException(404, f"there is no job {job_id[:40]!r}, or its results have expired")


def _view(service: Service, job: Job) -> JobView:
    return JobView.of(job, service.jobs.position(job.id))


async def _events(service: Service, job_id: str) -> AsyncIterator[str]:
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        loop.call_soon_threadsafe(changed.set)

    with service.jobs.watch(job_id, tell):
        while True:
            changed.clear()
            job = service.jobs.find(job_id)
            if job is None:
                return
            yield f"event: job\ndata: {_view(service, job).model_dump_json()}\n\n"
            if job.finished:
                return
            while not changed.is_set():
                try:
                    await asyncio.wait_for(changed.wait(), _HEARTBEAT_S)
                except TimeoutError:
                    yield ": still here\n\n"


def _named_file(job: Job, name: str) -> tuple[int, FileKind]:
    """The object and kind of file that a name such as ``0.compressed.ply`` means."""
    digits, dot, rest = name.partition(".")
    kind = FILE_KINDS.get(dot + rest)
    if kind is None:
        raise HTTPException(
            404, f"there is no format {rest[:40]!r}, expected one of: {', '.join(FILE_KINDS)}"
        )
    known = {str(number): number for number in range(len(job.results))}
    if digits not in known:
        raise HTTPException(
            404, f"the job is {job.state} and has {len(known)} results, not one {digits[:40]!r}"
        )
    return known[digits], kind


async def _file_response(service: Service, job: Job, index: int, kind: FileKind) -> Response:
    item = job.results[index]
    headers = {"content-disposition": f'attachment; filename="{slug(item.prompt)}-{item.seed}{kind.suffix}"'}
    if kind.rendered:
        data = await service.files.rendered(job.id, index, item, kind)
        return Response(data, media_type=kind.media_type, headers=headers)
    pieces, size = await service.files.splats(item, kind)
    headers["content-length"] = str(size)
    return StreamingResponse(pieces, media_type=kind.media_type, headers=headers)
