"""The viewer in a browser, against our own renderer."""

import base64
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from numpy.typing import NDArray

from diffsplat.core import Splats
from diffsplat.geometry import orbit_cameras
from diffsplat.io.splat_formats import SPLAT_FORMATS, read_splats, write_splats
from diffsplat.io.up_axis import UpAxis
from diffsplat.meshing.mesh_writing import write_mesh
from diffsplat.meshing.splat_meshing import ColoredMesh
from diffsplat.render import render
from diffsplat.render.meshes.mesh_files import load_mesh
from diffsplat.render.meshes.mesh_renderer import MeshRenderer
from diffsplat.web.viewer_app import BROWSER_SUFFIXES, create_viewer_app, local_files
from support.background_server import background_server
from support.browsing import WatchedPages, picture, pixels, settle
from support.splat_figures import blocks

SIZE = 256
CAMERA = "radius=1.4&focal=1.3888889&target=0,0,0&background=ffffff"
ALIKE = 0.012
"""Mean absolute difference of pictures of the same view; the issue asks for 0.06, which a mirrored object passes."""

FILES: tuple[tuple[str, UpAxis | None], ...] = (
    ("turned.ply", "z"),
    ("turned.compressed.ply", "y"),
    ("figure.compressed.ply", None),
    ("figure.splat", None),
    ("figure.spz", None),
    ("figure.sog", None),
)
LOAD = """([content, name]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  return diffsplat.stage.load(diffsplat.stage.viewers[0], bytes.buffer, name);
}"""
DROP = """([content, name]) => {
  const carried = new DataTransfer();
  carried.items.add(new File([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))], name));
  for (const type of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: carried }));
  }
}"""

View = Callable[..., str]


@pytest.fixture(scope="module")
def figure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("figure") / "figure.ply"
    write_splats(blocks(), path)
    return path


@pytest.fixture
def view() -> Iterator[View]:
    """Serves files; gives the address of the page."""
    with ExitStack() as stack:

        def start(*paths: Path) -> str:
            return stack.enter_context(background_server(create_viewer_app(local_files(paths))))

        yield start


def kept(*, least: float = 0, highest: float = math.inf) -> Splats:
    """The splats whose opacity is at least ``least``, up to a height."""
    splats = blocks()
    mask = (splats.opacities >= least) & (splats.means[:, 1] <= highest)
    return Splats(*(getattr(splats, field.name)[mask] for field in fields(splats)))


def rendered(azimuth: float, elevation: float, **limits: float) -> NDArray[np.float64]:
    """Our own picture of :func:`kept` splats."""
    cameras = orbit_cameras([azimuth], elevation, width=SIZE, height=SIZE)
    rgb = render(kept(**limits), cameras, normals=False).rgb[0]
    return rgb.permute(1, 2, 0).double().numpy()


def difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.abs(one - other).mean())


def textured_box() -> ColoredMesh:
    """A box whose every triangle has the whole of a texture of two colours."""
    box = trimesh.creation.box((0.5, 0.3, 0.4))
    corners = box.vertices[box.faces].reshape(-1, 3).astype(np.float32)
    normals = np.repeat(box.face_normals, 3, axis=0).astype(np.float32)
    uv = np.tile(np.array([[0, 0], [1, 0], [0, 1]], np.float32), (len(box.faces), 1))
    texture = np.full((64, 64, 3), (200, 60, 20), np.uint8)
    texture[:, 16:] = (20, 90, 180)
    faces = np.arange(len(corners), dtype=np.int32).reshape(-1, 3)
    return ColoredMesh(corners, normals, faces, uv=uv, texture=texture)


def test_the_object_is_drawn_as_our_renderer_draws_it(view: View, pages: WatchedPages, figure: Path) -> None:
    address = view(figure)
    for azimuth, elevation in ((0, 10), (130, 35)):
        page = pages.open(f"{address}?bare=1&azimuth={azimuth}&elevation={elevation}&{CAMERA}")
        shown, expected = picture(page), rendered(azimuth, elevation)
        assert difference(shown, expected) < ALIKE
        assert difference(shown[:, ::-1], expected) > 3 * ALIKE
        assert difference(shown[::-1], expected) > 3 * ALIKE


def test_every_format_stands_upright(view: View, pages: WatchedPages, figure: Path, tmp_path: Path) -> None:
    page = pages.open(f"{view(figure)}?bare=1&azimuth=30&elevation=10&{CAMERA}")
    expected = rendered(30, 10)
    for name, up in FILES:
        write_splats(blocks(), tmp_path / name, up=up)
        page.evaluate(LOAD, [base64.b64encode((tmp_path / name).read_bytes()).decode(), name])
        settle(page)
        assert difference(picture(page), expected) < ALIKE, name


def test_a_format_that_browsers_cannot_read_is_converted(
    view: View, pages: WatchedPages, tmp_path: Path
) -> None:
    write_splats(blocks(), tmp_path / "figure.glb")
    page = pages.open(f"{view(tmp_path / 'figure.glb')}?azimuth=30&elevation=10&{CAMERA}")
    assert page.inner_text(".caption .name") == "figure.glb"
    page.evaluate("document.documentElement.classList.add('bare')")
    settle(page)
    assert difference(picture(page), rendered(30, 10)) < ALIKE


def test_up_axes_and_suffixes_agree_with_the_package(view: View, pages: WatchedPages) -> None:
    page = pages.open(view())
    suffixes = page.evaluate("import('/static/js/files.js').then((files) => files.READABLE_SUFFIXES)")
    assert set(suffixes) == BROWSER_SUFFIXES
    for suffix in suffixes:
        up = page.evaluate(
            "(name) => import('/static/js/files.js').then((files) => files.upAxisOf(new ArrayBuffer(0), name))",
            f"file{suffix}",
        )
        assert up.replace("-", "minus-") == SPLAT_FORMATS[suffix].up, suffix


def test_dropped_files_appear_beside_each_other(view: View, pages: WatchedPages, figure: Path) -> None:
    page = pages.open(view(), width=720, height=360)
    assert page.is_visible("text=Drop splat files here")
    for name in ("first.ply", "second.ply"):
        page.evaluate(DROP, [base64.b64encode(figure.read_bytes()).decode(), name])
        page.wait_for_selector(f".tile[aria-label='{name}']:not(.busy)")
    settle(page)
    size = f"{figure.stat().st_size / 1000:.1f} kB"
    assert page.locator(".caption .facts").all_inner_texts() == [f"1,200 splats · {size}"] * 2
    assert not page.is_visible("text=Drop splat files here")
    left, right = (page.locator(".tile").nth(place).bounding_box() for place in (0, 1))
    assert left["x"] + left["width"] <= right["x"]
    assert left["y"] == right["y"]
    page.evaluate("diffsplat.stage.viewers[0].nudge({ azimuth: 40, zoom: 1.5 })")
    first, second = page.evaluate("diffsplat.stage.viewers.map((viewer) => viewer.camera)")
    assert first["azimuth"] == pytest.approx(40)
    assert second.pop("target") == pytest.approx(first.pop("target"))
    assert second == pytest.approx(first)
    page.click(".tile[aria-label='first.ply'] .caption button")
    assert page.locator(".tile").count() == 1


def test_files_that_cannot_be_shown_are_explained(view: View, pages: WatchedPages) -> None:
    page = pages.open(view())
    for name, sentence in (
        ("notes.txt", "notes.txt is not a supported file"),
        ("broken.ply", "broken.ply is not a readable splat file."),
        ("empty.spz", "empty.spz is empty."),
    ):
        content = b"" if name.startswith("empty") else b"ply\nformat nothing"
        page.evaluate(DROP, [base64.b64encode(content).decode(), name])
        page.wait_for_selector(f".notice.error:has-text('{sentence}')")
    assert page.locator(".tile").count() == 0
    page.locator(".notice button").first.click()
    assert page.locator(".notice").count() == 2
    # Spark itself logs what it cannot read.
    assert all("worker" in text.lower() for text in pages.complaints)
    pages.complaints.clear()


def test_a_file_that_went_away_is_explained(view: View, pages: WatchedPages, tmp_path: Path) -> None:
    write_splats(blocks(300), tmp_path / "gone.ply")
    address = view(tmp_path / "gone.ply")
    (tmp_path / "gone.ply").unlink()
    page = pages.open(address)
    assert "gone.ply" in page.inner_text(".notice.error")
    pages.complaints.clear()  # Chromium itself reports the answer that was not "200 OK".


def test_keys(view: View, pages: WatchedPages, figure: Path) -> None:
    page = pages.open(f"{view(figure)}?azimuth=0&elevation=10&{CAMERA}")
    pose = "diffsplat.stage.viewers[0].camera"
    for key in ("ArrowRight", "ArrowUp", "+"):
        page.keyboard.press(key)
    moved = page.evaluate(pose)
    assert moved["azimuth"] == pytest.approx(15)
    assert moved["elevation"] == pytest.approx(20)
    assert moved["radius"] == pytest.approx(1.4 / 1.15)
    page.keyboard.press("Shift+ArrowRight")
    assert np.linalg.norm(page.evaluate(pose)["target"]) > 0.05
    page.keyboard.press("r")
    reset = page.evaluate(pose)
    assert (reset["azimuth"], reset["elevation"], reset["radius"]) == pytest.approx((0, 10, 1.4))
    page.keyboard.press("?")
    assert page.is_visible("dialog:has-text('save screenshot')")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(pose)["azimuth"] == pytest.approx(0)
    page.keyboard.press("Escape")
    assert not page.is_visible("dialog")
    page.keyboard.press("p")
    assert page.is_visible("#panel")


def test_settings_change_the_picture(view: View, pages: WatchedPages, figure: Path) -> None:
    page = pages.open(f"{view(figure)}?bare=1&azimuth=0&elevation=10&{CAMERA}")
    upright = picture(page)
    page.evaluate("diffsplat.settings.background = '#000000'")
    settle(page)
    assert picture(page)[:8, :8].max() < 0.01
    page.evaluate("diffsplat.settings.background = '#ffffff'; diffsplat.settings.opacity = 0.8")
    settle(page)
    opacities = blocks().opacities
    fewer = picture(page)
    assert 0.2 < float((opacities >= 0.8).float().mean()) < 0.8
    assert difference(fewer, rendered(0, 10, least=0.8)) < ALIKE < difference(fewer, upright)
    page.evaluate("diffsplat.settings.opacity = 0; diffsplat.settings.up = '-y'")
    settle(page)
    page.evaluate("diffsplat.settings.up = 'y'")
    settle(page)
    assert difference(picture(page), upright) < 0.002


def test_the_mesh_beside_the_splats_is_drawn_as_our_renderer_draws_it(
    view: View, pages: WatchedPages, tmp_path: Path
) -> None:
    write_splats(blocks(), tmp_path / "figure.ply")
    write_mesh(textured_box(), tmp_path / "figure.glb")
    page = pages.open(f"{view(tmp_path / 'figure.ply')}?azimuth=30&elevation=20&bare=1&{CAMERA}")
    splats = picture(page)
    page.keyboard.press("m")
    settle(page)
    renderer = MeshRenderer(load_mesh(tmp_path / "figure.glb"), size=SIZE)
    (seen,) = renderer.render(orbit_cameras([30.0], 20.0, width=SIZE, height=SIZE))
    rgba = seen.unlit_image() / 255
    mesh = picture(page)
    assert difference(mesh, rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]) < ALIKE
    assert difference(mesh, splats) > 5 * ALIKE
    page.keyboard.press("m")
    settle(page)
    assert difference(picture(page), splats) < 1e-6


def test_a_broken_mesh_beside_the_splats_is_explained(
    view: View, pages: WatchedPages, figure: Path, tmp_path: Path
) -> None:
    (tmp_path / "figure.ply").write_bytes(figure.read_bytes())
    (tmp_path / "figure.glb").write_bytes(b"glTF but nothing more")
    page = pages.open(view(tmp_path / "figure.ply"))
    page.keyboard.press("m")
    page.locator(".notice", has_text="not a readable .glb file").wait_for()
    settle(page)


@pytest.mark.parametrize("suffix", [".ply", ".spz"])
def test_what_is_cropped_is_hidden_and_absent_from_the_saved_file(
    view: View, pages: WatchedPages, tmp_path: Path, suffix: str
) -> None:
    write_splats(blocks(), tmp_path / f"figure{suffix}", up="y")
    page = pages.open(
        f"{view(tmp_path / f'figure{suffix}')}?azimuth=0&elevation=10&{CAMERA}", width=500, height=700
    )
    page.keyboard.press("p")
    for name, share in (("Crop Y to", "0.5"), ("Minimum opacity", "0.5")):
        page.get_by_label(name).fill(share)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as .ply").click()
    assert download.value.suggested_filename == "figure-cropped.ply"
    saved_as = tmp_path / "saved.ply"
    download.value.save_as(saved_as)
    saved = read_splats(saved_as)
    middle = page.evaluate("diffsplat.stage.viewers[0].fit.center[1]")
    expected = kept(least=0.5, highest=middle)
    assert 0 < expected.count < blocks().count
    if suffix == ".ply":
        for field in fields(saved):
            torch.testing.assert_close(getattr(saved, field.name), getattr(expected, field.name))
    else:
        assert abs(saved.count - expected.count) < 0.02 * expected.count
        assert float(saved.means[:, 1].max()) <= middle + 1e-3
    page.goto(f"{page.url}&bare=1")
    page.set_viewport_size({"width": SIZE, "height": SIZE})
    settle(page)
    page.evaluate("diffsplat.settings.cropAt(1, 1, 0.5); diffsplat.settings.opacity = 0.5")
    settle(page)
    assert difference(picture(page), rendered(0, 10, least=0.5, highest=middle)) < ALIKE


def test_the_saved_picture_is_what_is_shown(view: View, pages: WatchedPages, figure: Path) -> None:
    page = pages.open(f"{view(figure)}?bare=1&azimuth=30&elevation=10&{CAMERA}")
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert download.value.suggested_filename == "figure.png"
    saved = pixels(Path(download.value.path()).read_bytes())
    assert saved.shape == (SIZE, SIZE, 3)
    assert difference(saved, picture(page)) < 0.002


def test_a_drag_turns_and_a_wheel_zooms(view: View, pages: WatchedPages, figure: Path) -> None:
    address = f"{view(figure)}?bare=1&azimuth=0&elevation=0&{CAMERA}"
    page = pages.open(address, reduced_motion="reduce")
    page.mouse.move(128, 128)
    page.mouse.down()
    page.mouse.move(92, 140, steps=4)
    page.mouse.up()
    page.mouse.wheel(0, -200)
    settle(page)
    pose = page.evaluate("diffsplat.stage.viewers[0].camera")
    assert 20 < pose["azimuth"] < 120
    assert 2 < pose["elevation"] < 60
    assert 0.8 < pose["radius"] < 1.35


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_within_its_width(
    view: View, pages: WatchedPages, figure: Path, scheme: str
) -> None:
    page = pages.open(
        view(figure), width=360, height=640, has_touch=True, is_mobile=True, color_scheme=scheme
    )
    assert page.get_attribute("html", "data-theme") == scheme
    page.tap("#settings-button")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("document.documentElement.scrollHeight") <= 640
    for place in (".bar", ".toolbar", ".panel", ".caption"):
        box = page.locator(place).bounding_box()
        assert box["x"] >= 0, place
        assert box["x"] + box["width"] <= 360, place
        assert box["y"] + box["height"] <= 640, place
    canvas, panel, toolbar = (page.locator(it).bounding_box() for it in ("canvas", ".panel", ".toolbar"))
    assert canvas["height"] > 120
    assert canvas["y"] + canvas["height"] <= panel["y"] < panel["y"] + panel["height"] <= toolbar["y"]
    for button in page.locator(".bar button:visible, .toolbar button:visible").all():
        box = button.bounding_box()
        assert min(box["width"], box["height"]) >= 44
    shade = picture(page)[150, 4].mean()
    assert shade > 0.9 if scheme == "light" else shade < 0.2


def test_the_chosen_theme_is_kept(view: View, pages: WatchedPages) -> None:
    page = pages.open(view(), color_scheme="light")
    page.keyboard.press("t")
    assert page.get_attribute("html", "data-theme") == "dark"
    page.reload()
    settle(page)
    assert page.get_attribute("html", "data-theme") == "dark"
