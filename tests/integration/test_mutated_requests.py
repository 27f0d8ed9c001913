"""Requests made of the server's own schema and then damaged: none may be answered with 5xx."""

import base64
import json
import random
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.web.job_queue import IMAGE_FIELDS
from support.instant_model import Instant

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**32, 2**63, 2**64, 10**400, -0.0, 1e308, 1e-308, "", "0", "\0", "\ud800",
    "é" * 2000, "../../etc/passwd", "%00", "data:,", "data:;base64,", "data:image/png;base64,AAAA", "NaN", [], {},
    [[]], [None], {"": {}}, [1] * 300, {"prompt": "a"},
)  # fmt: skip
ODD_BYTES = (
    b"",
    b"\0",
    b"\xff\xfe",
    b"{",
    b"}",
    b'"',
    b"NaN",
    b"1e999",
    b"[" * 5000,
    b"\r\n\r\n",
    b"--",
    b"\\u0000",
)
ODD_PATHS = (
    "..", "%2e%2e", "%2f", "0.ply%00.png", "-1.ply", "00.ply", "9" * 90, "0.compressed.ply/..", "0.exe", "0.", ".ply",
    "events", "results", "\u202e", "a" * 2000,
)  # fmt: skip
CONTENT_TYPES = (
    "application/json", "application/json; charset=utf-16", "multipart/form-data", "multipart/form-data; boundary=",
    "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "text/plain", "", "\xff",
)  # fmt: skip


def png(random_: random.Random) -> bytes:
    file = BytesIO()
    Image.new(random_.choice(("RGB", "L", "RGBA", "1", "P", "I;16")), (random_.randint(1, 40), 9)).save(
        file, "PNG"
    )
    return file.getvalue()


class Mutations:
    """Requests from a seed."""

    def __init__(self, schema: dict[str, Any], jobs: list[str], seed: int) -> None:
        self._schema = schema
        self._jobs = jobs
        self._random = random.Random(seed)

    def request(self) -> dict[str, Any]:
        """Arguments of ``client.request``."""
        paths = self._schema["paths"]
        posted = [path for path, methods in paths.items() if "post" in methods]
        path = self._random.choice(posted if self._random.random() < 0.6 else list(paths))
        methods = paths[path]
        known = ["post"] if "post" in methods else list(methods)
        method = self._one_of(known, (*methods, "put", "patch", "head", "options"))
        path = path.replace("{job_id}", self._one_of(self._jobs, ODD_PATHS))
        name = self._one_of(("0",), ODD_PATHS) + "." + self._one_of(("ply", "png", "html", "spz"), ODD_PATHS)
        path = path.replace("{number}.{format}", name)
        headers = {}
        if self._random.random() < 0.2:
            header = self._random.choice(
                ("range", "accept-encoding", "if-none-match", "expect", "content-length")
            )
            headers[header] = self._random.choice(("", "0", "-1", "bytes=0-", "bytes=9-1", "*", "9" * 30))
        if method not in ("post", "put", "patch"):
            return {"method": method, "url": path, "headers": headers}
        return {"method": method, "url": path, "headers": headers} | self._body(methods.get(method, {}))

    def _one_of(self, good: Any, odd: Any) -> Any:
        return self._random.choice(good if self._random.random() < 0.6 else odd)

    def _body(self, operation: dict[str, Any]) -> dict[str, Any]:
        content = operation.get("requestBody", {}).get("content", {})
        properties = content.get("application/json", {}).get("schema", {}).get("properties", {"prompt": {}})
        values = {
            name: self._value(name, entry)
            for name, entry in properties.items()
            if name == "prompt" or self._random.random() < 0.15
        }
        if self._random.random() < 0.1:
            values[self._random.choice(("__class__", "", "\0", "prompts"))] = 1
        if self._random.random() < 0.3:
            return self._form(values)
        text = json.dumps(values).encode()
        if self._random.random() < 0.4:
            text = self._damaged(text)
        return {"content": text, "headers": {"content-type": self._one_of(CONTENT_TYPES[:1], CONTENT_TYPES)}}

    def _form(self, values: dict[str, Any]) -> dict[str, Any]:
        files = {
            name: (
                "a.png",
                self._damaged(png(self._random)) if self._random.random() < 0.5 else png(self._random),
            )
            for name in IMAGE_FIELDS
            if self._random.random() < 0.5
        }
        texts = {name: str(value).encode(errors="replace").decode() for name, value in values.items()}
        return {"data": texts, "files": files or {"x": b""}}

    def _value(self, name: str, entry: dict[str, Any]) -> Any:
        if self._random.random() < 0.1:
            return self._random.choice(ODD_VALUES)
        if name == "model":
            return "instant"
        if name in IMAGE_FIELDS:
            return base64.b64encode(self._damaged(png(self._random))).decode()
        kinds = {"integer": 1, "number": 2.5, "boolean": True, "string": "a chair"}
        choices = [*entry.get("enum", ()), *(kinds.get(part.get("type")) for part in entry.get("anyOf", ()))]
        return self._random.choice(choices or [kinds.get(entry.get("type", ""), "instant")])

    def _damaged(self, data: bytes) -> bytes:
        place = self._random.randrange(len(data) + 1)
        end = place + self._random.choice((0, 0, 1, 5, len(data)))
        return data[:place] + self._random.choice(ODD_BYTES) + data[end:]


def attack(client: TestClient, count: int, seed: int) -> dict[int, int]:
    """How often each status was answered."""
    jobs = [client.post("/api/jobs", json={"prompt": "a chair"}).json()["id"] for _ in range(3)]
    mutations = Mutations(client.get("/api/openapi.json").json(), jobs, seed)
    statuses: dict[int, int] = {}
    while (number := sum(statuses.values())) < count:
        request = mutations.request()
        if request["url"].endswith("/events"):
            continue  # a stream, which is tested elsewhere
        try:
            answer = client.request(**request)
        except (UnicodeError, ValueError):
            continue  # what the client itself refuses to send
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        assert answer.status_code < 500 or answer.status_code == 503, (number, request, answer.text)
        if answer.status_code == 201:
            client.delete(f"/api/jobs/{answer.json()['id']}")
    return statuses


@pytest.mark.parametrize(
    "count", [300, pytest.param(10_000, marks=pytest.mark.slow)], ids=["some", "ten thousand"]
)
def test_no_mutated_request_is_a_server_error(
    serve: Callable[..., TestClient], small_pipeline: DiffSplatPipeline, count: int
):
    client = serve(Instant(small_pipeline), max_queued=10_000)
    statuses = attack(client, count, seed=count)
    assert {200, 201, 404, 405, 415, 422} <= set(statuses)
    assert client.get("/api/health").json()["status"] == "ok"
