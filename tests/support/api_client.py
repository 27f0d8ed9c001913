"""Jobs of the generation API, asked for and waited for."""

import json

from starlette.testclient import TestClient

CHAIR = {"prompt": "a red chair", "steps": 2}


def submit(client: TestClient, **options) -> dict:
    answer = client.post("/api/jobs", json=CHAIR | options)
    assert answer.status_code == 201, answer.text
    return answer.json()


def events(client: TestClient, identity: str) -> list[dict]:
    """All events of a job, until the stream ends."""
    with client.stream("GET", f"/api/jobs/{identity}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = list(stream.iter_lines())
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def finished(client: TestClient, **options) -> dict:
    return events(client, submit(client, **options)["id"])[-1]


def sentence(answer) -> str:
    """The one sentence of a refusal."""
    body = answer.json()
    assert set(body) == {"detail"}
    assert body["detail"]
    assert "\n" not in body["detail"]
    return body["detail"]
