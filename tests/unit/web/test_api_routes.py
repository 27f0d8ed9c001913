"""The API as its clients see it: jobs, events, files, refusals, and what nobody may do."""

import base64
import errno
import os
import threading
import time
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from PIL import Image

from diffsplat.data.training_vocabulary import TrainingVocabulary
from diffsplat.errors import InvalidInputError
from diffsplat.io.splat_formats import read_splats, write_splats
from diffsplat.io.splat_suffixes import WRITABLE_SUFFIXES
from diffsplat.pipelines import unfamiliar_prompts
from diffsplat.pipelines.unfamiliar_prompts import KnownWords
from diffsplat.web.model_worker import ModelWorker, ServedModel
from support.api_client import CHAIR, events, finished, sentence, submit


def ply_bytes(splats) -> bytes:
    with TemporaryDirectory() as folder:
        write_splats(splats, Path(folder) / "object.ply")
        return (Path(folder) / "object.ply").read_bytes()


def png(width: int = 32, height: int = 32, mode: str = "RGB") -> bytes:
    file = BytesIO()
    Image.new(mode, (width, height)).save(file, "PNG")
    return file.getvalue()


class Gate:
    """A model that works only as far as it is let."""

    def __init__(self, worker: ModelWorker) -> None:
        self.models = worker.models
        self._worker = worker
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)

    def __call__(self, job, advance):
        self.entered.release()
        while not self.open.wait(0.005):
            advance(0, job.steps)
        return self._worker(job, advance)


@pytest.fixture
def gate(small_pipeline):
    return Gate(ModelWorker.of([ServedModel("small", small_pipeline)]))


def test_a_job_makes_what_the_pipeline_makes(client, small_pipeline, tmp_path):
    job = finished(client, seed=5, steps=3, guidance=2.0, count=2, negative_prompt="blue")
    assert (job["state"], job["error"]) == ("done", None)
    truth = small_pipeline(
        "a red chair", seed=5, steps=3, guidance=2.0, count=2, negative_prompt="blue"
    ).splats
    for result in job["results"]:
        number = result["number"]
        answer = client.get(f"/api/jobs/{job['id']}/results/{number}.ply")
        assert f'filename="a-red-chair-{5 + number}.ply"' in answer.headers["content-disposition"]
        path = tmp_path / f"{number}.ply"
        path.write_bytes(answer.content)
        read, expected = read_splats(path), truth[number].visible()
        assert result["splats"] == read.count
        assert torch.equal(read.means, expected.means)
        torch.testing.assert_close(read.colors, expected.colors, rtol=0, atol=1e-5)


def test_sampling_options_reach_the_pipeline_and_are_echoed(client, small_pipeline):
    options = {"sampler": "dpm++", "elevation": 25.0, "steps": 4, "seed": 6}
    job = finished(client, **options)
    (result,) = job["results"]
    truth = small_pipeline("a red chair", **options)
    assert {name: job[name] for name in options} == options
    assert (job["guidance"], job["least_guidance"], result["elevation"]) == (2.5, 1.0, 25.0)
    body = client.get(f"/api/jobs/{job['id']}/results/0.ply").content
    means = small_pipeline("a red chair", **{**options, "sampler": "euler"}).splats.means
    assert not torch.equal(truth.splats.means, means)
    assert body == ply_bytes(truth.splats[0].visible())


def test_events_tell_every_step_in_order(client):
    seen = events(client, submit(client, steps=4, count=2)["id"])
    assert [event["steps_in_all"] for event in seen] == [8] * len(seen)
    done = [event["steps_done"] for event in seen]
    assert done == sorted(done)
    assert done[-1] == 8
    states = [event["state"] for event in seen]
    assert states[-1] == "done"
    assert states == sorted(states, key=["queued", "running", "done"].index)


def test_events_of_a_finished_job_are_one(client):
    job = finished(client)
    assert events(client, job["id"]) == [job]
    assert client.get(f"/api/jobs/{job['id']}").json() == job


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
def test_every_format_is_written_and_read(client, tmp_path, suffix):
    job = finished(client)
    files = {file["suffix"]: file["url"] for file in job["results"][0]["files"]}
    answer = client.get(files[suffix])
    assert answer.status_code == 200
    path = tmp_path / f"object{suffix}"
    path.write_bytes(answer.content)
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert 0 < read_splats(path).count <= job["results"][0]["splats"]


@pytest.mark.parametrize(("suffix", "kind"), [(".png", "PNG"), (".gif", "GIF"), (".webp", "WEBP")])
def test_pictures_open(client, suffix, kind):
    job = finished(client)
    answer = client.get(f"/api/jobs/{job['id']}/results/0{suffix}")
    with Image.open(BytesIO(answer.content)) as image:
        assert image.format == kind
        assert image.size == (256, 256)


def test_mesh_is_offered_and_made_once(client, monkeypatch):
    made = []

    def write(item, path, **_):
        made.append(item.prompt)
        path.write_bytes(b"glTF of a mesh")

    monkeypatch.setattr("diffsplat.web.result_files.write_object", write)
    job = finished(client)
    (url,) = (file["url"] for file in job["results"][0]["files"] if file["suffix"] == ".mesh.glb")
    answers = [client.get(url) for _ in range(2)]
    assert [answer.content for answer in answers] == [b"glTF of a mesh"] * 2
    assert answers[0].headers["content-type"] == "model/gltf-binary"
    assert len(made) == 1


def test_the_turntable_is_a_video(client):
    job = finished(client)
    answer = client.get(f"/api/jobs/{job['id']}/results/0.mp4")
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.content[4:8] == b"ftyp"


def test_a_running_job_is_cancelled(serve, gate):
    client = serve(gate)
    job = submit(client)
    assert gate.entered.acquire(timeout=10)
    assert client.delete(f"/api/jobs/{job['id']}").status_code == 200
    last = events(client, job["id"])[-1]
    assert (last["state"], last["results"]) == ("cancelled", [])
    gate.open.set()
    assert finished(client)["state"] == "done"


def test_a_waiting_job_is_cancelled_and_others_move_up(serve, gate):
    client = serve(gate)
    jobs = [submit(client, seed=seed) for seed in range(4)]
    assert gate.entered.acquire(timeout=10)
    assert [client.get(f"/api/jobs/{job['id']}").json()["position"] for job in jobs] == [None, 0, 1, 2]
    assert client.delete(f"/api/jobs/{jobs[1]['id']}").json()["state"] == "cancelled"
    assert [client.get(f"/api/jobs/{job['id']}").json()["position"] for job in jobs] == [None, None, 0, 1]
    gate.open.set()
    assert [events(client, job["id"])[-1]["state"] for job in jobs] == ["done", "cancelled", "done", "done"]


def test_a_finished_job_is_forgotten_when_deleted(client):
    job = finished(client)
    assert client.delete(f"/api/jobs/{job['id']}").status_code == 200
    assert client.get(f"/api/jobs/{job['id']}").status_code == 404
    assert client.get(f"/api/jobs/{job['id']}/results/0.ply").status_code == 404


def test_a_full_queue_says_when_to_come_back(serve, gate):
    client = serve(gate, max_queued=2)
    submit(client)
    assert gate.entered.acquire(timeout=10)
    for _ in range(2):
        submit(client)
    answer = client.post("/api/jobs", json=CHAIR)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert "full" in sentence(answer)
    gate.open.set()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": "x" * 1001}, "at most 1000 characters"),
        ({"prompt": 5}, "prompt is 5, expected a text"),
        ({"prompt": None}, "prompt is None, expected a text"),
        ({"seed": -1}, "seed is -1, expected at least 0"),
        ({"seed": 2**63}, "seed is"),
        ({"seed": 1.5}, "seed is 1.5, expected a whole number"),
        ({"steps": 0}, "steps is 0, expected at least 1"),
        ({"steps": 101}, "steps is 101, expected at most 100"),
        ({"steps": True}, "steps is True, expected a whole number"),
        ({"count": 5}, "count is 5, expected at most 4"),
        ({"count": 10**6}, "count is 1000000, expected at most 4"),
        ({"count": 2**31}, "count is 2147483648, expected at most 1000000"),
        ({"guidance": -1}, "guidance is -1"),
        ({"elevation": 91}, "elevation is 91, expected at most 90"),
        ({"model": "large"}, "the model is 'large', expected one of: small"),
        ({"colour": "red"}, "'colour' is unknown here"),
        ({"image": "not base64!"}, "the image is not in base64"),
        ({"image": base64.b64encode(png()).decode()}, "image was given, but the model small takes no image"),
        ({"control": base64.b64encode(png()).decode()}, "the model small follows no control map"),
    ],
)
def test_refusals_are_sentences(client, options, reason):
    answer = client.post("/api/jobs", json=CHAIR | options)
    assert answer.status_code == 422
    assert reason in sentence(answer)


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 422),
        (b"", "application/json", 422),
        (b"[1]", "application/json", 422),
        (b'{"prompt": "\\ud800"}', "application/json", 422),
        (b'{"prompt": "a chair", "guidance": NaN}', "application/json", 422),
        (b'{"prompt": "a chair", "guidance": 1e999}', "application/json", 422),
        (b"[" * 50_000, "application/json", 422),
        (b"\xff\xfe\x00", "application/json", 422),
        (b"prompt=chair", "application/x-www-form-urlencoded", 415),
        (b"prompt", "", 415),
        (b"nonsense", "multipart/form-data", 422),
        (b"nonsense", "multipart/form-data; boundary=x", 422),
        (b"--x\r\n\r\n\r\n--x--", "multipart/form-data; boundary=x", 422),
        (b" " * 200_000, "application/json", 413),
    ],
)
def test_broken_bodies_are_refused(client, content, kind, status):
    answer = client.post("/api/jobs", content=content, headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    sentence(answer)


def test_a_form_works_like_json(client):
    form = {"prompt": "a red chair", "steps": "2", "guidance": "2.5", "seed": "3", "guess_mode": "false"}
    answer = client.post("/api/jobs", files={name: (None, value) for name, value in form.items()})
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert (job["steps"], job["guidance"], job["seed"]) == (2, 2.5, 3)
    assert events(client, job["id"])[-1]["state"] == "done"


@pytest.mark.parametrize(
    "path",
    [
        "/api/jobs/nothing",
        "/api/jobs/nothing/events",
        "/api/jobs/nothing/results/0.ply",
        "/api/nothing",
        "/api/jobs/..%2f..%2fetc%2fpasswd",
        "/static/../../../pyproject.toml",
        "/static/..%2f..%2fapi.py",
        "/etc/passwd",
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    sentence(answer)


@pytest.mark.parametrize(
    "name",
    [
        "0.exe",
        "1.ply",
        "-1.ply",
        "00.ply",
        "²." + "ply",
        "9" * 90 + ".ply",
        "0.ply%2f..%2f..",
        "0..ply",
        "0.PLY",
    ],
)
def test_odd_names_of_files_are_not_found(client, name):
    job = finished(client)
    answer = client.get(f"/api/jobs/{job['id']}/results/{name}")
    assert answer.status_code == 404
    sentence(answer)


def test_the_catalogue_says_what_a_model_takes(client):
    catalogue = client.get("/api/models").json()
    (model,) = catalogue["models"]
    assert (model["name"], model["steps"], model["guidance"], model["elevation"]) == ("small", 3, 2.5, 12.0)
    assert model["takes"]["image"] is False
    assert model["takes"]["control"] == []
    assert model["takes"]["reasons"]["image"] == "the model small takes no image"
    assert {file["suffix"] for file in catalogue["files"]} >= {*WRITABLE_SUFFIXES, ".mp4", ".png"}


def test_what_the_model_does_not_know_is_said(client, small_pipeline, monkeypatch):
    words = TrainingVocabulary({"chair": 2, "lamp": 1}, {})
    monkeypatch.setattr(small_pipeline, "known_words", KnownWords(words, small_pipeline.text_encoder))
    monkeypatch.setattr(unfamiliar_prompts, "FAR", 2.0)  # the encoder of this model is untrained
    assert finished(client, prompt="a red chair")["notice"] is None
    notice = finished(client, prompt="a giraffe")["notice"]
    assert notice.startswith("the model was trained on nothing like 'a giraffe'")
    assert client.get("/api/models").json()["models"][0]["examples"] == ["a red chair", "an orange lamp"]


def test_a_failing_model_fails_its_job_alone(serve, small_pipeline):
    class Failing(Gate):
        def __call__(self, job, advance):
            if job.generation.seed == 1:
                raise InvalidInputError("the seed is 1, expected another")
            if job.generation.seed == 2:
                raise MemoryError("of /secret/path")
            return self._worker(job, advance)

    client = serve(Failing(ModelWorker.of([ServedModel("small", small_pipeline)])))
    assert finished(client, seed=1)["error"] == "the seed is 1, expected another"
    odd = finished(client, seed=2)
    assert odd["state"] == "failed"
    assert "MemoryError" in odd["error"]
    assert "secret" not in odd["error"]
    assert finished(client, seed=3)["state"] == "done"


def test_the_token_opens_the_api(serve):
    client = serve(guard={"token": "correct horse"})
    assert client.get("/api/health").status_code == 200
    for given in (
        None,
        "Bearer wrong",
        "Bearer ",
        "Basic correct horse",
        "correct horse",
        "Bearer correct hors\xe9",
    ):
        headers = {} if given is None else {"authorization": given.encode("latin-1")}
        answer = client.get("/api/models", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "token" in sentence(answer)
        assert client.post("/api/jobs", json=CHAIR, headers=headers).status_code == 401
    assert client.get("/api/models", headers={"authorization": "Bearer correct horse"}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "localhost.evil.example", "10.0.0.1", "", "[", "0.0.0.0"]
)
def test_other_hosts_are_refused(client, host):
    answer = client.get("/api/health", headers={"host": host})
    assert answer.status_code == 403
    sentence(answer)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:7860", "127.0.0.1:7860", "[::1]:7860"])
def test_this_machine_is_answered(client, host):
    assert client.get("/api/health", headers={"host": host}).status_code == 200


def test_beyond_this_machine_names_are_answered_with_a_token_or_when_named(serve):
    """Anyone can point a name at this server, nobody an address."""
    cases = (
        ({}, {"10.0.0.1": 200, "[fd00::1]:7860": 200, "localhost": 200, "evil.example": 403}),
        ({"token": "secret"}, {"10.0.0.1": 200, "nas.example": 200}),
        (
            {"allowed_hosts": ("NAS.example",)},
            {"nas.example:7860": 200, "evil.example": 403, "10.0.0.1": 403},
        ),
        ({"token": "secret", "allowed_hosts": ("nas.example",)}, {"evil.example": 403, "localhost": 200}),
        ({"loopback_only": True, "allowed_hosts": ("nas.example",)}, {"nas.example": 200, "10.0.0.1": 403}),
    )
    for options, hosts in cases:
        client = serve(guard={"loopback_only": False} | options)
        for host, status in hosts.items():
            assert client.get("/api/health", headers={"host": host}).status_code == status, (options, host)


def test_pages_of_other_sites_may_not_submit(client):
    for origin in (
        "http://evil.example",
        "null",
        "http://localhost:9999",
        "http://[",
        "http://localhost:7860.evil",
    ):
        answer = client.post("/api/jobs", json=CHAIR, headers={"origin": origin})
        assert answer.status_code == 403, origin
        assert "access-control-allow-origin" not in answer.headers
    assert (
        client.post("/api/jobs", json=CHAIR, headers={"origin": "http://localhost:7860"}).status_code == 201
    )


@pytest.mark.parametrize("path", ["/api/health", "/api/nothing", "/api/docs", "/api/openapi.json"])
def test_security_headers_are_everywhere(client, path):
    headers = client.get(path).headers
    assert "default-src" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


def test_the_documentation_loads_nothing_from_elsewhere(client):
    page = client.get("/api/docs").text
    assert "POST /api/jobs" in page
    assert page.count("src=") == page.count("src='../static/js/api_docs.js'") == 1
    for word in ("http://", "https://", "@import", "url("):
        assert word not in page


def test_several_prompts_are_one_job(client, serve, small_pipeline):
    prompts = ["a red chair", "a blue barrel"]
    job = finished(client, prompt="", prompts=prompts, count=2, seed=3)
    assert (job["state"], job["prompts"], job["prompt"]) == ("done", prompts, prompts[0])
    made = [(result["prompt"], result["seed"]) for result in job["results"]]
    assert made == [(prompt, seed) for prompt in prompts for seed in (3, 4)]
    expected = small_pipeline(prompts[1], seed=4, steps=2).splats[0].visible()
    assert client.get(f"/api/jobs/{job['id']}/results/3.ply").content == ply_bytes(expected)
    for options, says in (
        ({"prompts": prompts}, "prompts is empty or comes with a prompt"),
        ({"prompt": "", "prompts": []}, "prompts is empty or comes with a prompt"),
        ({"prompt": "", "prompts": ["a chair", ""]}, "the prompt is empty"),
        ({"prompt": "", "prompts": "a chair"}, "prompts is 'a chair', expected a list"),
        ({"prompt": "", "prompts": ["x" * 1001]}, "expected at most 1000 characters"),
    ):
        answer = client.post("/api/jobs", json=CHAIR | options)
        assert answer.status_code == 422
        assert says in sentence(answer)
    answer = serve(max_count=3).post("/api/jobs", json=CHAIR | {"prompt": "", "prompts": prompts, "count": 2})
    assert sentence(answer) == "the number of objects is 4, expected at most 3"


def test_health_changes_when_the_server_stops(client):
    assert client.get("/api/health").json()["status"] == "ok"


def test_old_results_expire(serve):
    client = serve(keep_seconds=0.3)
    job = finished(client)
    for _ in range(600):
        if client.get(f"/api/jobs/{job['id']}").status_code == 404:
            return
        time.sleep(0.1)
    raise AssertionError("the job was still there after a minute")


def test_only_the_latest_results_are_kept(serve):
    client = serve(keep_jobs=3)
    jobs = [finished(client, seed=seed)["id"] for seed in range(5)]
    assert [client.get(f"/api/jobs/{job}").status_code for job in jobs] == [404, 404, 200, 200, 200]


def test_results_are_kept_within_their_memory(serve):
    client = serve(keep_bytes=1)
    jobs = [finished(client, seed=seed)["id"] for seed in range(3)]
    assert [client.get(f"/api/jobs/{job}").status_code for job in jobs] == [404, 404, 200]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_whatever_a_job_raises_the_next_one_is_worked_on(serve, small_pipeline, error):
    worker = ModelWorker.of([ServedModel("small", small_pipeline)])
    errors = [error]

    class Failing:
        models = worker.models

        def __call__(self, job, advance):
            if errors:
                raise errors.pop()
            return worker(job, advance)

    client = serve(Failing())
    first = finished(client)
    assert first["state"] == "failed"
    assert type(error).__name__ in first["error"]
    assert finished(client)["state"] == "done"
    assert client.get("/api/health").json()["status"] == "ok"


def _full(*_args, **_options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_507_and_the_results_stay(client, monkeypatch):
    job = finished(client)
    with monkeypatch.context() as patch:
        patch.setattr("diffsplat.io.file_access.os.link", _full)
        answer = client.get(f"/api/jobs/{job['id']}/results/0.ply")
        assert answer.status_code == 507
        assert "No space left on device" in sentence(answer)
    assert client.get(f"/api/jobs/{job['id']}/results/0.ply").status_code == 200


def test_a_full_disk_takes_no_large_request(client, monkeypatch):
    class FullFile:
        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        write = _full

    monkeypatch.setattr("diffsplat.web.request_bodies.SpooledTemporaryFile", FullFile)
    answer = client.post("/api/jobs", json=CHAIR)
    assert answer.status_code == 507
    assert "No space left on device" in sentence(answer)
