"""The page of ``diffsplat serve`` in a browser."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from diffsplat.errors import InvalidInputError
from diffsplat.geometry import ring_cameras
from diffsplat.io.splat_formats import read_splats
from diffsplat.io.splat_suffixes import WRITABLE_SUFFIXES
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.model_opening import OpeningOptions
from diffsplat.pipelines.splat_output import GeneratedObject
from diffsplat.web.model_worker import ModelWorker, ServedModel, load_models
from support.browsing import WatchedPages, pixels, settle
from support.release_folders import build_elevation, build_release
from support.splat_figures import blocks

Live = Callable[..., str]


class Figures:
    """A model that makes the same figure of every prompt, a step at a time."""

    def __init__(self, pipe: DiffSplatPipeline) -> None:
        self.models = {"figures": ServedModel("figures", pipe)}

    def __call__(self, job: Any, advance: Callable[[int, int], None]) -> list[GeneratedObject]:
        for step in range(job.steps):
            torch.randn(100, 100).svd()
            advance(step + 1, job.steps)
        cameras = ring_cameras(10.0, size=256)
        return [
            GeneratedObject(blocks(), cameras, 10.0, prompt, seed) for prompt, seed in job.generation.objects
        ]


@pytest.fixture
def figures(small_pipeline: DiffSplatPipeline) -> Figures:
    return Figures(small_pipeline)


def generate(page: Any, prompt: str, **settings: object) -> None:
    page.fill("#prompt", prompt)
    if settings:
        page.locator("details.more").evaluate("details => details.open = true")
    for name, value in settings.items():
        page.fill(f"#{name}", str(value))
    page.click("#generate")


def generated(page: Any, prompt: str, **settings: object) -> None:
    """Generate, and wait for the object to be on the screen."""
    before = page.locator(".thumb").count()
    generate(page, prompt, **settings)
    page.locator(".thumb").nth(before).wait_for()
    settle(page)


def test_a_typed_prompt_becomes_an_object(live: Live, pages: WatchedPages, figures: Figures, tmp_path: Path):
    page = pages.open(live(figures), width=900, height=700)
    generated(page, "a red <b>chair</b>", count=2, seed=7)
    assert page.locator(".thumb").count() == 2
    assert page.inner_text("#name") == "a red <b>chair</b>"
    facts = page.inner_text("#facts")
    assert re.match(rf"{blocks().count:,} splats · seed 7 · \d", facts)
    shown = pixels(page.locator("#surface").screenshot())
    assert np.abs(shown - shown[:1, :1]).max(axis=-1).mean() > 0.05
    for suffix in (".ply", ".spz"):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=suffix[1:], exact=True).click()
        assert waiting.value.suggested_filename == f"a-red-b-chair-b-7{suffix}"
        path = tmp_path / f"object{suffix}"
        waiting.value.save_as(path)
        assert read_splats(path).count == blocks().count
    chips = page.locator("#files button").all_inner_texts()
    assert {f".{chip}" for chip in chips} >= {*WRITABLE_SUFFIXES, ".mp4"}
    page.locator(".thumb").nth(1).click()
    page.locator("#facts", has_text="seed 8").wait_for()
    page.reload()
    page.locator(".thumb").nth(1).wait_for()
    settle(page)


def test_the_embedded_kind_of_model_says_why_it_takes_no_picture(
    live: Live, pages: WatchedPages, figures: Figures
):
    page = pages.open(live(figures), width=390, height=844)
    assert page.inner_text("#note") == "figures takes text only."
    assert not page.is_visible("#image")
    assert not page.is_visible("#control")
    page.click("#generate")
    assert page.inner_text(".notice span") == "Enter a prompt first."
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width == 390


def test_progress_is_shown_and_cancel_works(live: Live, pages: WatchedPages, figures: Figures):
    class Slow(Figures):
        """Stays at the third of many steps until it is cancelled."""

        def __call__(self, job: Any, advance: Callable[[int, int], None]) -> list[GeneratedObject]:
            def linger(step: int, steps: int) -> None:
                advance(step, steps)
                while steps > 1 and step == 3:
                    time.sleep(0.02)
                    advance(step, steps)

            return super().__call__(job, linger)

    page = pages.open(live(Slow(figures.models["figures"].pipe)), width=900, height=700)
    generate(page, "a chair", steps=100, count=4)
    page.locator("#status", has_text=re.compile(r"^Step [1-9]\d* of 400$")).wait_for()
    assert 0 < float(page.evaluate("document.getElementById('progress').value")) < 1
    page.click("#cancel")
    page.get_by_text("Cancelled.").wait_for()
    assert page.is_enabled("#generate")
    generated(page, "a chair", steps=1, count=1)


def test_a_failure_is_shown_as_a_sentence(live: Live, pages: WatchedPages, figures: Figures):
    class Failing(Figures):
        def __call__(self, job: Any, advance: Callable[[int, int], None]) -> list[GeneratedObject]:
            raise InvalidInputError("the moon is full, expected another")

    page = pages.open(live(Failing(figures.models["figures"].pipe)), width=900, height=700)
    generate(page, "a chair")
    page.get_by_text("The moon is full, expected another.").wait_for()
    settle(page)


def test_the_token_is_asked_for(live: Live, pages: WatchedPages, figures: Figures):
    url = live(figures, token="correct horse")
    opened = pages.browser.new_context(viewport={"width": 900, "height": 700})
    page = opened.new_page()
    page.goto(url)
    page.fill("dialog input", "correct horse")
    page.click("dialog button")
    page.wait_for_selector("#model option", state="attached")
    generated(page, "a chair", steps=1)
    opened.close()


@pytest.fixture(scope="module")
def picture_model(tmp_path_factory: pytest.TempPathFactory) -> ModelWorker:
    folder = tmp_path_factory.mktemp("weights")
    build_release(folder, "sd15")
    build_elevation(folder)
    return load_models(("sd15:image", "sd15:canny"), OpeningOptions(weights=folder, device="cpu"))


def test_a_dropped_picture_becomes_an_object(
    live: Live, pages: WatchedPages, picture_model: ModelWorker, tmp_path: Path
):
    image = Image.new("RGBA", (96, 64), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((20, 10, 70, 55), fill=(200, 30, 30, 255))
    path = tmp_path / "disk.png"
    image.save(path)
    page = pages.open(live(picture_model), width=500, height=500)
    page.locator("details.more").evaluate("details => details.open = true")
    page.select_option("#model", "sd15:canny")
    page.set_input_files("#control input", path)
    page.wait_for_selector("#control img")
    assert not page.is_visible("#image")
    page.select_option("#model", "sd15:image")
    assert not page.is_visible("#control")
    carried = page.evaluate_handle(
        """bytes => {
          const carried = new DataTransfer();
          carried.items.add(new File([new Uint8Array(bytes)], "disk.png", { type: "image/png" }));
          return carried;
        }""",
        list(path.read_bytes()),
    )
    page.dispatch_event("#image", "drop", {"dataTransfer": carried})
    page.wait_for_selector("#image img")
    settle(page)
    assert page.evaluate("document.querySelector('#image img').naturalWidth") == 256
    generated(page, "", steps=1)
    assert page.inner_text("#name") == "from image"
