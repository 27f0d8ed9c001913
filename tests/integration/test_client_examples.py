"""The clients of docs/server.md, run as they stand there against a server, and the page where requests are tried."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffsplat.io.splat_formats import read_splats

DOCS = Path(__file__).parents[2] / "docs" / "server.md"


def example(language: str, url: str) -> str:
    (code,) = re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert "http://localhost:7860" in code
    return code.replace("http://localhost:7860", url.rstrip("/"))


def test_python(live: Callable[..., str], small_pipeline: Any, tmp_path: Path):
    command = [sys.executable, "-c", example("python", live())]
    said = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert said.splitlines()[-1] == "done 6 of 6"
    for number, prompt in enumerate(("a red armchair", "a wooden barrel")):
        expected = small_pipeline(prompt, seed=3).splats[0].visible()
        assert read_splats(tmp_path / f"object-{number}.ply").count == expected.count


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_javascript(live: Callable[..., str], small_pipeline: Any, tmp_path: Path):
    script = tmp_path / "client.mjs"
    script.write_text(example("javascript", live()))
    subprocess.run(["node", str(script)], cwd=tmp_path, check=True)
    expected = small_pipeline("a red armchair", seed=3).splats[0].visible()
    assert read_splats(tmp_path / "armchair.spz").count == expected.count


def test_requests_are_tried_on_the_page(live: Callable[..., str], pages: Any):
    url = live(token="secret")
    context = pages.browser.new_context()
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.on("pageerror", lambda error: pages.complaints.append(str(error)))
    page.goto(f"{url}api/docs")
    page.wait_for_selector("#token:not([hidden])")

    def send(method: str, path: str, **fields: str) -> str:
        form = page.locator(f"form[data-method='{method}'][data-path='{path}']")
        for name, value in fields.items():
            form.locator(f"[name={name}]").fill(value)
        form.get_by_role("button", name="Send").click()
        page.wait_for_function("form => !form.querySelector('button').disabled", arg=form.element_handle())
        return form.locator("output").inner_text()

    assert send("GET", "/api/models").startswith("401 ")
    page.fill("#token input", "secret")
    assert '"name": "small"' in send("GET", "/api/models")
    made = send("POST", "/api/jobs")
    assert made.startswith("201 application/json")
    (job,) = re.findall(r'"id": "([^"]+)"', made)
    assert '"state":"done"' in send("GET", "/api/jobs/{job_id}/events", job_id=job)
    result = "/api/jobs/{job_id}/results/{number}.{format}"
    assert "Save 0.png" in send("GET", result, job_id=job)
    assert page.locator("output img").evaluate("image => image.naturalWidth") > 0
    assert '"detail": "there is no job' in send("GET", "/api/jobs/{job_id}", job_id="none")
    context.close()
