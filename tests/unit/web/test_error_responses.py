"""Bugs in a server: status 500 and an id that leads to the traceback in the log, never the client's mistake."""

import logging
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from diffsplat.errors import InvalidInputError
from diffsplat.io.splat_formats import write_splats
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.web.generation_service import Service
from diffsplat.web.result_files import FileMaker
from diffsplat.web.viewer_app import create_viewer_app, local_files
from support.api_client import CHAIR, finished, sentence
from support.splat_figures import blocks

BUGS = [
    KeyError("secret"),
    ValueError("secret"),
    RuntimeError("secret"),
    ImportError("secret"),
    OSError(2, "secret"),
]
NAMES = [type(bug).__name__ for bug in BUGS]


def raising(error: Exception):
    def broken(*_: object) -> None:
        raise error

    return broken


def traceback_of(reported: str, log: pytest.LogCaptureFixture) -> str:
    """What the log says about the error that a client was told of."""
    found = re.search(r"internal error [0-9a-f]{8} \(\w+\)", reported)
    assert found, reported
    assert "secret" not in reported
    (record,) = [record for record in log.records if found[0] in record.getMessage()]
    assert record.levelno == logging.ERROR
    assert len([record for record in log.records if record.exc_info]) == 1
    return logging.Formatter().format(record)


@pytest.mark.parametrize("bug", BUGS, ids=NAMES)
def test_a_bug_in_a_request_is_500_with_an_id(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bug: Exception
):
    monkeypatch.setattr(Service, "submit", raising(bug))
    answer = client.post("/api/jobs", json=CHAIR)
    assert answer.status_code == 500
    assert "default-src" in answer.headers["content-security-policy"]
    entry = traceback_of(sentence(answer), caplog)
    assert entry.startswith("POST /api/jobs: ")
    assert "in broken" in entry


@pytest.mark.parametrize("bug", BUGS, ids=NAMES)
def test_a_bug_in_a_job_is_reported_with_an_id(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bug: Exception
):
    monkeypatch.setattr(DiffSplatPipeline, "generate", raising(bug))
    job = finished(client)
    assert job["state"] == "failed"
    assert "in broken" in traceback_of(job["error"], caplog)


@pytest.mark.parametrize("suffix", ["ply", "png"])
def test_a_bug_in_writing_a_file_is_500_with_an_id(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, suffix: str
):
    job = finished(client)
    monkeypatch.setattr(FileMaker, "splats" if suffix == "ply" else "rendered", raising(ValueError("secret")))
    answer = client.get(f"/api/jobs/{job['id']}/results/0.{suffix}")
    assert answer.status_code == 500
    assert "in broken" in traceback_of(sentence(answer), caplog)


def test_what_the_client_can_put_right_is_a_sentence_in_no_log(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(DiffSplatPipeline, "generate", raising(InvalidInputError("the seed\nis odd")))
    assert finished(client)["error"] == "the seed is odd"
    monkeypatch.setattr(Service, "submit", raising(InvalidInputError("the seed\nis odd")))
    answer = client.post("/api/jobs", json=CHAIR)
    assert (answer.status_code, sentence(answer)) == (422, "the seed is odd")
    assert not [record for record in caplog.records if record.exc_info]


def test_a_response_that_breaks_off_is_logged(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def pieces():
        yield b"ply"
        raise KeyError("secret")

    async def splats(*_: object):
        return pieces(), 3

    job = finished(client)
    monkeypatch.setattr(FileMaker, "splats", splats)
    assert client.get(f"/api/jobs/{job['id']}/results/0.ply").content == b"ply"
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "internal error" in record.getMessage()


def test_a_bug_in_the_viewer_is_500_with_an_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    write_splats(blocks(30), tmp_path / "a.glb")
    monkeypatch.setattr("diffsplat.io.splat_formats.read_splats", raising(ValueError("secret")))
    client = TestClient(create_viewer_app(local_files([tmp_path / "a.glb"])), base_url="http://localhost")
    answer = client.get("/files/0")
    assert answer.status_code == 500
    assert "in broken" in traceback_of(sentence(answer), caplog)
