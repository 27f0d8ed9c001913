"""Bodies of requests: read within bounds of size and time, as JSON or as a form with files."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import IO, Generic, TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from diffsplat.io.file_access import STORAGE_ERRORS, explained_os_errors
from diffsplat.web.api_schemas import decoded, first_sentence
from diffsplat.web.job_queue import REPEATABLE_FIELD
from diffsplat.web.server_limits import Limits

_OPTION_BYTES = 64_000
"""Room for everything but images."""
_LARGE_AT_ONCE = 4
"""Bodies with images that are in memory at the same time; while they arrive, they are in files."""
_MOST_FIELDS, _MOST_FILES = 32, 8
_HANG_UP = {"connection": "close"}
"""The rest of a body is not waited for."""

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True)
class Body(Generic[ModelT]):
    """A body that was read.

    Args:
        options: its named values.
        images: files by field; of one that may be repeated in their order.
    """

    options: ModelT
    images: dict[str, tuple[bytes, ...]]


class BodyReader:
    """Reads bodies.

    Args:
        limits: bounds of images and time.
        image_fields: those that may hold an image.
        most_images: how many a request may have.
    """

    def __init__(self, limits: Limits, image_fields: tuple[str, ...], most_images: int) -> None:
        self._limits = limits
        self._image_fields = image_fields
        base64_bytes = -(-limits.max_upload_bytes * 4 // 3) + 4
        self._most_bytes = _OPTION_BYTES + most_images * base64_bytes
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._arriving: set[asyncio.Timeout] = set()
        self._stopping = False

    def hang_up(self) -> None:
        """Wait no longer for bodies that are arriving; to be called in the server's own thread."""
        self._stopping = True
        for timer in self._arriving:
            timer.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def read(self, request: Request, model: type[ModelT]) -> AsyncIterator[Body[ModelT]]:
        """The options and images of a request; few large ones are in memory at once, until their blocks end.

        Raises:
            HTTPException: 408, 413, 415 or 422.
            DiskError: when there is no room for it.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("application/json", "multipart/form-data"):
            raise HTTPException(
                415, f"the content type is {kind[:100]!r}, expected application/json or multipart/form-data"
            )
        with SpooledTemporaryFile(_OPTION_BYTES) as file:
            size = await self._receive(request, file)
            async with self._large if size > _OPTION_BYTES else nullcontext():
                yield await self._parsed(request, file, model, kind)

    async def _parsed(
        self, request: Request, file: IO[bytes], model: type[ModelT], kind: str
    ) -> Body[ModelT]:
        file.seek(0)
        data = file.read()
        try:
            if kind == "application/json":
                return self._from_json(data, model)
            return await self._from_form(data, request, model)
        except ValidationError as error:
            raise HTTPException(422, first_sentence(list(error.errors()))) from error

    async def _receive(self, request: Request, file: IO[bytes]) -> int:
        """Write the whole body to a file while it arrives; gives its bytes."""
        too_large = HTTPException(
            413, f"the request is too large, expected at most {self._most_bytes} bytes", _HANG_UP
        )
        if _announced_bytes(request) > self._most_bytes:
            raise too_large
        count = 0
        try:
            async with asyncio.timeout(self._limits.upload_seconds) as timer:
                self._arriving.add(timer)
                try:
                    async for piece in request.stream():
                        count += len(piece)
                        if count > self._most_bytes:
                            raise too_large
                        with explained_os_errors("cannot keep the request", STORAGE_ERRORS):
                            file.write(piece)
                finally:
                    self._arriving.remove(timer)
        except TimeoutError as error:
            if self._stopping:
                raise HTTPException(503, "the server is stopping", _HANG_UP) from error
            raise HTTPException(
                408, f"the request did not arrive within {self._limits.upload_seconds:g} s", _HANG_UP
            ) from error
        except ClientDisconnect as error:
            raise HTTPException(400, "the request broke off") from error
        return count

    def _from_json(self, data: bytes, model: type[ModelT]) -> Body[ModelT]:
        options = model.model_validate_json(data, strict=True)
        texts = {name: getattr(options, name, None) for name in self._image_fields}
        images = {
            name: tuple(decoded(text, name) for text in ([given] if isinstance(given, str) else given))
            for name, given in texts.items()
            if given is not None
        }
        return Body(options, images)

    async def _from_form(self, data: bytes, request: Request, model: type[ModelT]) -> Body[ModelT]:
        async def stream() -> AsyncIterator[bytes]:
            yield data

        parser = MultiPartParser(
            request.headers,
            stream(),  # pyright: ignore[reportArgumentType]  any asynchronous iterator will do
            max_files=_MOST_FILES,
            max_fields=_MOST_FIELDS,
            max_part_size=_OPTION_BYTES,
        )
        try:
            form = await parser.parse()
        except (MultiPartException, ValueError, LookupError) as error:
            raise HTTPException(422, "the form is broken, expected multipart/form-data") from error
        try:
            values, images = await self._sorted(form)
        finally:
            await form.close()
        return Body(model.model_validate(values), images)

    async def _sorted(self, form: FormData) -> tuple[dict[str, str], dict[str, tuple[bytes, ...]]]:
        """The texts and the files of a form."""
        values: dict[str, str] = {}
        images: dict[str, tuple[bytes, ...]] = {}
        for name, value in form.multi_items():
            if name in values or (name in images and name != REPEATABLE_FIELD):
                raise HTTPException(422, f"{name[:100]!r} was given twice")
            if isinstance(value, UploadFile):
                if name not in self._image_fields:
                    raise HTTPException(422, f"the file {name[:100]!r} is unknown here")
                images[name] = (*images.get(name, ()), await value.read())
            elif name in self._image_fields:
                raise HTTPException(422, f"{name} is a text, expected a file")
            else:
                values[name] = value
        return values, images


def _announced_bytes(request: Request) -> int:
    """Bytes that a request announces; 0 when it does not say."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else 0
