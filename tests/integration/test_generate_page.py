"""The page of ``diffsplat serve`` in a browser."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from diffsplat.errors import InvalidInputError
from diffsplat.geometry import ring_cameras
from diffsplat.io.splat_formats import read_splats
from diffsplat.io.splat_suffixes import WRITABLE_SUFFIXES
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.model_opening import OpeningOptions
from diffsplat.pipelines.pipeline_output import GeneratedObject
from diffsplat.web.model_worker import ModelWorker, ServedModel, load_models
from support.browsing import WatchedPages, pixels, settle
from support.ip_adapter_files import build_ip_adapter
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


class Lingering(Figures):
    """Stays at the third of many steps until it is cancelled."""

    def __call__(self, job: Any, advance: Callable[[int, int], None]) -> list[GeneratedObject]:
        def linger(step: int, steps: int) -> None:
            advance(step, steps)
            while steps > 1 and step == 3:
                time.sleep(0.02)
                advance(step, steps)

        return super().__call__(job, linger)


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


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["desktop", "phone"])
def test_the_object_is_in_sight_and_not_behind_the_toolbar(
    live: Live, pages: WatchedPages, figures: Figures, size: tuple[int, int]
):
    page = pages.open(live(figures), width=size[0], height=size[1])
    generated(page, "a chair")
    canvas, toolbar = (page.locator(place).bounding_box() for place in ("#surface canvas", "#toolbar"))
    assert 0 <= canvas["y"] < canvas["y"] + canvas["height"] <= toolbar["y"]
    assert canvas["height"] > 250
    assert toolbar["y"] + toolbar["height"] <= size[1]


def test_progress_is_shown_and_cancel_works(live: Live, pages: WatchedPages, figures: Figures):
    page = pages.open(live(Lingering(figures.models["figures"].pipe)), width=900, height=700)
    generate(page, "a chair", steps=100, count=4)
    page.locator(
        "#status", has_text=re.compile(r"^Step [1-9]\d* of 400( · about \d+ (s|min) left)?$")
    ).wait_for()
    assert 0 < float(page.evaluate("document.getElementById('progress').value")) < 1
    page.click("#cancel")
    page.get_by_text("Cancelled.").wait_for()
    assert page.is_enabled("#generate")
    generated(page, "a chair", steps=1, count=1)


def test_control_enter_generates_but_not_during_a_job(live: Live, pages: WatchedPages, figures: Figures):
    page = pages.open(live(Lingering(figures.models["figures"].pipe)), width=900, height=700)
    generate(page, "a chair", steps=100)
    page.locator("#status", has_text="Step 3").wait_for()
    page.locator("#prompt").press("Control+Enter")
    assert len(page.evaluate("fetch('api/jobs').then((answer) => answer.json())")) == 1
    page.click("#cancel")
    page.get_by_text("Cancelled.").wait_for()
    page.fill("#steps", "1")
    page.locator("#prompt").press("Control+Enter")
    page.locator(".thumb").wait_for()
    settle(page)
    assert page.get_by_role("img", name="3D view of a chair").is_visible()


def test_a_job_is_followed_again_after_the_connection_broke(
    live: Live, pages: WatchedPages, figures: Figures
):
    page = pages.open(live(figures), width=900, height=700)
    page.route("**/events", lambda route: route.abort())
    generate(page, "a chair", steps=1)
    page.locator("#status", has_text="The server does not answer, trying again").wait_for()
    page.unroute("**/events")
    page.locator(".thumb").wait_for()
    settle(page)
    pages.complaints.clear()


def test_the_result_that_was_clicked_last_is_shown(live: Live, pages: WatchedPages, figures: Figures):
    page = pages.open(live(figures), width=900, height=700)
    generated(page, "a chair", steps=1)
    generated(page, "a table", steps=1)
    slow, _ = page.evaluate("fetch('api/jobs').then((answer) => answer.json())")
    page.evaluate(
        """(id) => {
          const fetchNow = window.fetch;
          window.fetch = async (url, options) => {
            if (url.includes(id)) await new Promise((resolve) => setTimeout(resolve, 2000));
            return fetchNow(url, options);
          };
        }""",
        slow["id"],
    )
    page.locator(".thumb").nth(1).click()
    page.locator(".thumb").nth(0).click()
    page.wait_for_timeout(3000)
    settle(page)
    assert page.inner_text("#name") == "a table"
    assert page.locator(".thumb").nth(0).get_attribute("aria-pressed") == "true"


def test_a_failure_is_shown_as_a_sentence(live: Live, pages: WatchedPages, figures: Figures):
    class Failing(Figures):
        def __call__(self, job: Any, advance: Callable[[int, int], None]) -> list[GeneratedObject]:
            raise InvalidInputError("the moon is full, expected another")

    page = pages.open(live(Failing(figures.models["figures"].pipe)), width=900, height=700)
    generate(page, "a chair")
    page.get_by_text("The moon is full, expected another.").wait_for()
    settle(page)
    assert page.inner_text(".entry .failed") == "failed"


def test_every_generation_has_a_seed_of_its_own_unless_it_is_locked(
    live: Live, pages: WatchedPages, figures: Figures
):
    page = pages.open(live(figures), width=900, height=700)
    seeds = []
    for _ in range(2):
        generated(page, "a chair", steps=1)
        seeds.append(page.input_value("#seed"))
    assert len({"0", *seeds}) == 3
    page.click("#lock")
    generated(page, "a table", steps=1)
    assert page.input_value("#seed") == seeds[1]
    page.click("#lock")
    generated(page, "a table", steps=1, seed=5)
    assert page.input_value("#seed") == "5"


def test_a_click_on_a_result_brings_back_how_it_was_made(live: Live, pages: WatchedPages, figures: Figures):
    page = pages.open(live(figures), width=900, height=700)
    generated(page, "a chair", steps=2, guidance=3.5, seed=7, count=2, **{"negative-prompt": "blue"})
    generated(page, "a table", steps=1, guidance=1, seed=8, count=1, **{"negative-prompt": ""})
    page.locator(".thumb").nth(2).click()
    page.locator("#facts", has_text="seed 8").wait_for()
    fields = {"prompt": "a chair", "steps": "2", "guidance": "3.5", "seed": "8", "negative-prompt": "blue"}
    assert {name: page.input_value(f"#{name}") for name in fields} == fields
    assert page.get_attribute("#lock", "aria-pressed") == "true"


def test_a_result_is_shown_as_its_mesh_and_as_splats_again(live: Live, pages: WatchedPages, figures: Figures):
    page = pages.open(live(figures), width=700, height=700)
    generated(page, "a chair", seed=1)

    def shown() -> NDArray[np.float64]:
        settle(page)
        return pixels(page.locator("#surface").screenshot())

    splats = shown()
    background = np.abs(splats - splats[:1, :1]).mean()
    page.click("#mesh")
    page.locator("#mesh[aria-pressed=true]").wait_for()
    mesh = shown()
    assert 0.01 * background < np.abs(mesh - splats).mean() < 0.3 * background
    page.click("#mesh")
    page.locator("#mesh[aria-pressed=false]").wait_for()
    assert np.abs(shown() - splats).mean() < 1e-3


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["desktop", "phone"])
def test_a_result_is_shared_as_one_page(
    live: Live, pages: WatchedPages, figures: Figures, tmp_path: Path, size: tuple[int, int]
):
    page = pages.open(live(figures), width=900, height=700)
    prompt = "a </script><b> chair & more " + "and more " * 20
    generated(page, prompt, steps=1, seed=1)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save as a page to share").click()
    assert waiting.value.suggested_filename.startswith("a-script-b-chair-more-and-more")
    path = tmp_path / "shared.html"
    waiting.value.save_as(path)
    own = pages.hosts.copy()
    width, height = size
    phone = {"is_mobile": True, "has_touch": True} if width < 500 else {}
    shared = pages.open(
        path.as_uri(), width=width, height=height, offline=True, reduced_motion="reduce", **phone
    )
    assert shared.title() == prompt.strip()
    shown = pixels(shared.screenshot())
    drawn = np.abs(shown - shown[:1, :1]).max(axis=-1) > 0.1
    assert drawn[: height // 10].mean() < 0.01
    rows, columns = (np.flatnonzero(drawn[: height * 3 // 4].any(axis=axis)) for axis in (1, 0))
    assert len(rows) > 0.4 * min(size)
    assert abs(columns[0] + columns[-1] - width) < 0.1 * width
    words = shared.locator("p").bounding_box()
    assert words["x"] >= 0
    assert words["x"] + words["width"] <= width
    assert words["y"] + words["height"] <= height
    assert shared.evaluate("document.documentElement.scrollWidth") == width
    pages.hosts.discard(None)
    pages.hosts.discard("")
    assert pages.hosts == own


def test_another_tab_has_the_results_and_may_delete_them(live: Live, pages: WatchedPages, figures: Figures):
    url = live(figures)
    first = pages.open(url, width=900, height=700)
    generated(first, "a chair", steps=1)
    second = pages.open(url, width=390, height=844, has_touch=True)
    assert second.inner_text("#name") == "a chair"
    second.locator(".entry .icon-button").click()
    second.locator(".entry").wait_for(state="detached")
    assert second.is_visible("#invitation")
    first.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    first.locator(".entry").wait_for(state="detached")
    assert first.is_visible("#invitation")


def test_two_results_are_compared_side_by_side(live: Live, pages: WatchedPages, figures: Figures):
    page = pages.open(live(figures), width=900, height=700)
    generated(page, "a chair", steps=1, seed=1)
    generated(page, "a table", steps=1, seed=2)
    page.click("#compare")
    page.locator(".thumb").nth(1).click()
    page.wait_for_url(re.compile(r"/viewer\?result="))
    page.locator(".tile .name").nth(1).wait_for()
    settle(page)
    assert page.locator(".tile .name").all_inner_texts() == ["a table, seed 2", "a chair, seed 1"]


def _drop(page: Any, place: str, name: str, kind: str, content: bytes) -> None:
    carried = page.evaluate_handle(
        """([bytes, name, type]) => {
          const carried = new DataTransfer();
          carried.items.add(new File([new Uint8Array(bytes)], name, { type }));
          return carried;
        }""",
        [list(content), name, kind],
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event(place, event, {"dataTransfer": carried})


def test_what_is_dropped_beside_is_refused_in_a_sentence(live: Live, pages: WatchedPages, figures: Figures):
    page = pages.open(live(figures), width=900, height=700)
    _drop(page, ".form", "cat.png", "image/png", b"no image")
    page.get_by_text("figures takes text only, so it has no use for cat.png.").wait_for()
    assert not page.is_visible(".drop-veil")


def test_a_server_that_has_gone_is_named(live: Live, pages: WatchedPages, figures: Figures):
    page = pages.open(live(figures), width=900, height=700)
    page.route("**/api/jobs", lambda route: route.abort())
    generate(page, "a chair")
    page.get_by_text("The server does not answer.").wait_for()
    assert page.is_enabled("#generate")
    pages.complaints.clear()


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
    names = ("sd15:image", "sd15:canny", "sd15:depth:canny")
    return load_models(names, OpeningOptions(weights=folder, device="cpu"))


def disk(folder: Path) -> Path:
    """A picture of a red disk, cut out."""
    image = Image.new("RGBA", (96, 64), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((20, 10, 70, 55), fill=(200, 30, 30, 255))
    path = folder / "disk.png"
    image.save(path)
    return path


def test_a_dropped_picture_becomes_an_object(
    live: Live, pages: WatchedPages, picture_model: ModelWorker, tmp_path: Path
):
    path = disk(tmp_path)
    page = pages.open(live(picture_model), width=500, height=500)
    page.locator("details.more").evaluate("details => details.open = true")
    page.select_option("#model", "sd15:canny")
    page.set_input_files("#control input", path)
    page.wait_for_selector("#control img")
    assert not page.is_visible("#image")
    page.select_option("#model", "sd15:image")
    assert not page.is_visible("#control")
    for place in (".form", "#image"):
        _drop(page, place, "disk.png", "image/png", path.read_bytes())
        page.wait_for_selector("#image img")
        assert not page.is_visible(".drop-veil")
        page.locator("#image").get_by_label("Remove image").click()
    _drop(page, ".form", "notes.txt", "text/plain", b"hello")
    page.get_by_text("notes.txt is not an image that sd15:image takes: PNG, JPEG or WebP.").wait_for()
    _drop(page, "#image", "disk.png", "image/png", path.read_bytes())
    page.wait_for_selector("#image img")
    settle(page)
    assert page.evaluate("document.querySelector('#image img').naturalWidth") == 256
    page.select_option("#sampler", "ddim")
    generated(page, "", steps=1)
    assert page.inner_text("#name") == "from image"
    page.locator("#framing").get_by_label("Border").fill("0.5")
    page.locator("#framing").get_by_label("Border").dispatch_event("change")
    page.wait_for_selector("#image img")
    page.locator("#keep-framing").dispatch_event("click")
    page.wait_for_selector("#image img")
    page.locator("#image").get_by_label("Remove image").dispatch_event("click")
    assert not page.is_visible("#framing")
    page.locator(".thumb").first.dispatch_event("click")
    page.wait_for_selector("#image img")
    settle(page)
    assert page.input_value("#cutout") == "none"
    assert page.input_value("#sampler") == "ddim"
    (job,) = page.evaluate("fetch('api/jobs').then((answer) => answer.json())")
    kept = page.evaluate(
        "async (url) => Array.from(new Uint8Array(await (await fetch(url)).arrayBuffer()))",
        job["images"]["image"],
    )
    shown = pixels(bytes(kept))
    assert shown.shape == (256, 256, 3)
    assert np.allclose(shown[128, 128], np.array([200, 30, 30]) / 255, atol=0.02)
    assert np.allclose(shown[2, 2], 1)


def test_steps_and_guidance_are_the_models_own_until_they_are_filled_in(
    live: Live, pages: WatchedPages, tmp_path: Path
):
    """Those of an image are others."""
    pipe = DiffSplatPipeline.from_pretrained("mini", image=True)
    of_text, of_image = pipe.defaults, pipe.image_defaults
    assert of_image is not None
    assert (of_text.steps, of_text.guidance) != (of_image.steps, of_image.guidance)
    page = pages.open(live(Figures(pipe)), width=500, height=700)
    page.locator("details.more").evaluate("details => details.open = true")

    def own() -> tuple[float, float]:
        steps, guidance = (page.get_attribute(f"#{name}", "placeholder") for name in ("steps", "guidance"))
        return float(steps), float(guidance)

    def asked() -> tuple[float, float]:
        job = page.evaluate("fetch('api/jobs').then((answer) => answer.json())")[-1]
        return job["steps"], job["guidance"]

    generated(page, "a chair")
    assert own() == asked() == (of_text.steps, of_text.guidance)
    page.set_input_files("#image input", disk(tmp_path))
    page.wait_for_selector("#image img")
    generated(page, "")
    assert own() == asked() == (of_image.steps, of_image.guidance)
    generated(page, "", steps=3)
    assert asked() == (3, of_image.guidance)
    page.locator("#image").get_by_label("Remove image").click()
    assert own() == (of_text.steps, of_text.guidance)
    page.locator(".thumb").last.click()  # of text, brought back
    settle(page)
    page.set_input_files("#image input", disk(tmp_path))
    page.wait_for_selector("#image img")
    generated(page, "a chair")
    assert asked() == (of_image.steps, of_image.guidance)


def test_two_control_maps_are_followed_and_brought_back(
    live: Live, pages: WatchedPages, picture_model: ModelWorker, tmp_path: Path
):
    paths = [tmp_path / "black.png", tmp_path / "white.png"]
    for path in paths:
        Image.new("RGB", (64, 64), path.stem).save(path)
    page = pages.open(live(picture_model), width=500, height=500)
    page.locator("details.more").evaluate("details => details.open = true")
    page.select_option("#model", "sd15:depth:canny")
    for place, words, path in zip(("#control", "#control-2"), ("(depth)", "(canny)"), paths, strict=True):
        assert words in page.inner_text(place)
        page.set_input_files(f"{place} input", path)
        page.wait_for_selector(f"{place} img")
    assert not page.is_visible("#control-3")
    generated(page, "a chair", steps=1)
    page.locator("#control").get_by_label("Remove image").dispatch_event("click")
    page.locator(".thumb").first.dispatch_event("click")
    page.wait_for_selector("#control img")
    page.wait_for_selector("#control-2 img")
    (job,) = page.evaluate("fetch('api/jobs').then((answer) => answer.json())")
    assert list(job["images"]) == ["control", "control-2"]


@pytest.fixture(scope="module")
def image_prompt_model(tmp_path_factory: pytest.TempPathFactory) -> ModelWorker:
    folder = tmp_path_factory.mktemp("image-prompt")
    build_release(folder, "sd15")
    unet = DiffSplatPipeline.from_pretrained("sd15", weights=folder).denoiser
    file = build_ip_adapter(folder / "adapter", unet)
    return load_models(["sd15"], OpeningOptions(weights=folder, ip_adapter=file, device="cpu"))


def test_an_image_prompt_is_asked_for_used_and_brought_back(
    live: Live, pages: WatchedPages, image_prompt_model: ModelWorker, tmp_path: Path
):
    path = tmp_path / "green.png"
    Image.new("RGB", (64, 64), "lime").save(path)
    page = pages.open(live(image_prompt_model), width=500, height=700)
    field = page.locator("#ip_adapter_image")
    assert "Image as a prompt" in field.inner_text()
    assert not page.is_visible("#image")
    assert not page.is_visible("#note")
    generate(page, "a chair", steps=1)
    page.get_by_text("Add an image as a prompt").wait_for()
    field.locator("input").set_input_files(path)
    field.get_by_role("img", name="Image as a prompt: green.png").wait_for()
    generated(page, "a chair", steps=1)
    field.get_by_label("Remove image").click()
    page.locator(".thumb").first.click()
    shown = field.locator("img")
    shown.wait_for()
    settle(page)
    (job,) = page.evaluate("fetch('api/jobs').then((answer) => answer.json())")
    assert list(job["images"]) == ["ip_adapter_image"]
    kept = page.evaluate(
        "async (url) => Array.from(new Uint8Array(await (await fetch(url)).arrayBuffer()))",
        job["images"]["ip_adapter_image"],
    )
    assert np.allclose(pixels(bytes(kept)), [0, 1, 0], atol=0.02)
