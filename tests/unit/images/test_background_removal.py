"""Pictures made ready as conditions, against closed forms; rembg is played by a stand-in."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffsplat.images.image_cutout_and_framing import prepare_condition_image, square_on_white
from diffsplat.images.image_framing_options import ImageFraming


def box_picture(height: int, width: int, box: tuple[int, int, int, int], color: Tensor) -> Tensor:
    """``[4, H, W]``: a box (top, bottom, left, right) of one colour; hidden colours elsewhere are black."""
    picture = torch.zeros(4, height, width)
    top, bottom, left, right = box
    picture[:3, top:bottom, left:right] = color[:, None, None]
    picture[3, top:bottom, left:right] = 1
    return picture


RED = torch.tensor([0.8, 0.2, 0.1])


@pytest.mark.parametrize(
    ("box", "placed"),
    [
        # The longer side takes 0.8 of 100 pixels, the shorter keeps the proportion, both are centred.
        ((10, 50, 5, 25), (10, 90, 30, 70)),
        ((10, 30, 5, 45), (30, 70, 10, 90)),
        ((0, 60, 0, 60), (10, 90, 10, 90)),
        ((20, 52, 60, 92), (10, 90, 10, 90)),
    ],
)
def test_the_box_of_an_object_is_centred(box: tuple[int, int, int, int], placed: tuple[int, int, int, int]):
    prepared = prepare_condition_image(box_picture(60, 100, box, RED), size=100)
    expected = box_picture(100, 100, placed, RED)
    torch.testing.assert_close(prepared.alpha, expected[3:], rtol=0, atol=1e-6)
    white = expected[:3] + 1 - expected[3:]
    torch.testing.assert_close(prepared.image, white, rtol=0, atol=1e-6)


@pytest.mark.parametrize("border", [0.0, 0.2, 0.5])
def test_the_border_is_as_wide_as_asked(border: float):
    prepared = prepare_condition_image(
        box_picture(40, 40, (4, 36, 4, 36), RED), size=64, framing=ImageFraming(border=border)
    )
    inside = torch.nonzero(prepared.alpha[0, 32] > 0.5).flatten()
    assert len(inside) == round(64 * (1 - border))
    assert abs(int(inside[0]) - (63 - int(inside[-1]))) <= 1


def test_hidden_colours_do_not_bleed_into_the_rim():
    y, x = torch.meshgrid(torch.arange(97.0), torch.arange(97.0), indexing="ij")
    alpha = (30 - torch.hypot(x - 48, y - 48)).clamp(0, 1)
    white_disc = torch.cat([(alpha > 0).float().expand(3, -1, -1), alpha[None]])
    prepared = prepare_condition_image(white_disc, size=50)
    # White under the disc and white behind it, whatever lies hidden where alpha is 0.
    torch.testing.assert_close(prepared.image, torch.ones(3, 50, 50), rtol=0, atol=1e-6)
    area = float(prepared.alpha.sum())
    # The rim falls from 1 at radius 29 to 0 at 30, and the 59 pixels from -29 to 29 become 40.
    assert area == pytest.approx(np.pi * (29.5 * 40 / 59) ** 2, rel=0.01)


def test_the_mean_colour_survives_a_large_reduction():
    # Stripes one pixel wide turn grey; without an antialiased reduction they would alias.
    picture = box_picture(800, 800, (0, 800, 0, 800), torch.ones(3))
    picture[:3, :, ::2] = 0
    picture[3, :300] = 0
    prepared = prepare_condition_image(picture, size=50, framing=ImageFraming(border=0))
    inner = prepared.image[:, 12:38, 3:-3]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5), rtol=0, atol=0.02)


def test_faint_noise_does_not_move_the_object():
    picture = box_picture(60, 60, (20, 40, 20, 40), RED)
    noisy = picture.clone()
    noisy[3, 0, 0] = noisy[3, 59, 30] = 3 / 255
    assert torch.equal(
        prepare_condition_image(noisy, size=64).image, prepare_condition_image(picture, size=64).image
    )


def test_a_picture_without_transparency_is_taken_whole_when_nothing_is_removed():
    picture = torch.rand(3, 20, 40)
    prepared = prepare_condition_image(picture, size=40, framing=ImageFraming("none"))
    torch.testing.assert_close(prepared.image[:, 10:30], picture, rtol=0, atol=1e-6)
    assert bool((prepared.image[:, :10] == 1).all())
    assert bool((prepared.alpha[:, 10:30] == 1).all())
    assert float(prepared.alpha.sum()) == 20 * 40


def test_a_few_transparent_pixels_are_no_cut_out():
    picture = torch.rand(4, 50, 50)
    picture[3] = 1
    picture[:, 0, 0] = 0
    prepared = prepare_condition_image(picture, size=50, framing=ImageFraming("none"))
    assert bool((prepared.image[:, 0, 0] == 1).all())
    torch.testing.assert_close(prepared.image[:, 1:], picture[:3, 1:], rtol=0, atol=1e-6)


def saved(tmp_path: Path, kind: str) -> Path:
    """A red box of 20 x 40 pixels with a transparent surround, in several kinds of files."""
    pixels = np.zeros((60, 80, 4), dtype=np.uint8)
    pixels[10:30, 20:60] = (204, 51, 26, 255)
    image, path, options = Image.fromarray(pixels), tmp_path / f"{kind}.png", {}
    match kind:
        case "palette":
            image = Image.new("P", (80, 60), 0)
            image.putpalette([255, 255, 255, 204, 51, 26])
            image.paste(1, (20, 10, 60, 30))
            options = {"transparency": 0}
        case "rotated":
            # Orientation 6: to be shown, the stored rows are turned clockwise.
            path = tmp_path / "rotated.webp"
            exif = Image.Exif()
            exif[0x0112] = 6
            image, options = image.transpose(Image.Transpose.ROTATE_90), {"exif": exif, "lossless": True}
        case "animated":
            second = Image.new("RGBA", (80, 60), (0, 0, 0, 255))
            options = {"save_all": True, "append_images": [second]}
        case _:
            pass
    image.save(path, **options)
    return path


@pytest.mark.parametrize("kind", ["plain", "palette", "rotated", "animated"])
def test_kinds_of_files(tmp_path: Path, kind: str):
    prepared = prepare_condition_image(saved(tmp_path, kind), size=100)
    expected = box_picture(100, 100, (30, 70, 10, 90), torch.tensor([204, 51, 26]) / 255)
    torch.testing.assert_close(prepared.image, expected[:3] + 1 - expected[3:], rtol=0, atol=1e-6)


def test_grey_of_16_bits_and_cmyk(tmp_path: Path):
    Image.fromarray(np.full((30, 30), 32768, dtype=np.uint16)).save(tmp_path / "a.png")
    prepared = prepare_condition_image(tmp_path / "a.png", size=30, framing=ImageFraming("none"))
    torch.testing.assert_close(prepared.image, torch.full((3, 30, 30), 0.5), rtol=0, atol=0.01)
    Image.new("CMYK", (30, 30), (0, 255, 255, 0)).save(tmp_path / "a.tif")
    prepared = prepare_condition_image(tmp_path / "a.tif", size=30, framing=ImageFraming("none"))
    torch.testing.assert_close(prepared.image[:, 5, 5], torch.tensor([1.0, 0, 0]), rtol=0, atol=0.02)


def test_pillow_images_and_files_agree(tmp_path: Path):
    path = saved(tmp_path, "rotated")
    with Image.open(path) as image:
        assert torch.equal(prepare_condition_image(image).image, prepare_condition_image(path).image)


class StandIn:
    """Takes everything that is not blue for the object, as soft as asked."""

    def __init__(self, strength: int = 255):
        self.strength = strength
        self.asked: list[np.ndarray] = []

    def new_session(self, name: str) -> str:
        return name

    def remove(self, image: Image.Image, *, session: str, only_mask: bool) -> Image.Image:
        assert only_mask
        assert session
        pixels = np.asarray(image)
        self.asked.append(pixels)
        return Image.fromarray(np.where(pixels[..., 2] < 128, self.strength, 0).astype(np.uint8))


@pytest.fixture
def rembg(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "rembg", stand_in)
    return stand_in


def test_the_background_is_removed_from_opaque_pictures(rembg: StandIn):
    picture = torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(3, 60, 60).clone()
    picture[:, 10:50, 5:25] = RED[:, None, None]
    prepared = prepare_condition_image(picture, size=100)
    expected = box_picture(100, 100, (10, 90, 30, 70), RED)
    torch.testing.assert_close(prepared.image, expected[:3] + 1 - expected[3:], rtol=0, atol=0.003)
    assert len(rembg.asked) == 1


def test_transparency_of_its_own_needs_no_rembg_unless_asked(rembg: StandIn):
    picture = box_picture(60, 60, (10, 50, 5, 25), RED)
    prepare_condition_image(picture)
    assert not rembg.asked
    prepare_condition_image(picture, framing=ImageFraming("rembg"))
    # It sees the picture on white.
    assert rembg.asked[0][0, 0].tolist() == [255, 255, 255]


def test_failures_of_rembg_are_one_sentence(rembg: StandIn, monkeypatch: pytest.MonkeyPatch):
    rembg.strength = 0
    with pytest.raises(ValueError, match="transparent or of one colour all over"):
        prepare_condition_image(torch.zeros(3, 20, 20))

    def no_network(name: str) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(rembg, "new_session", no_network)
    other = ImageFraming(rembg_model="isnet-general-use")
    with pytest.raises(
        ValueError, match=r"'isnet-general-use' \(no route to host\).*transparency needs none"
    ):
        prepare_condition_image(torch.zeros(3, 20, 20), framing=other)


def test_the_network_is_chosen_by_name_and_loaded_once(rembg: StandIn, monkeypatch: pytest.MonkeyPatch):
    names: list[str] = []
    monkeypatch.setattr(rembg, "new_session", lambda name: names.append(name) or name)
    for network in ("birefnet-general", "birefnet-general", "u2netp"):
        prepare_condition_image(torch.zeros(3, 20, 20), framing=ImageFraming(rembg_model=network))
    assert names == ["birefnet-general", "u2netp"]


@pytest.mark.parametrize("missing", ["rembg", "onnxruntime"])
def test_a_missing_rembg_names_the_extra(rembg: StandIn, monkeypatch: pytest.MonkeyPatch, missing: str):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"diffsplat\[image\].*transparency or before one plain colour"):
        prepare_condition_image(torch.rand(3, 20, 20))


def test_without_rembg_a_plain_background_is_removed_by_its_colour(
    rembg: StandIn, monkeypatch: pytest.MonkeyPatch
):
    picture = torch.ones(3, 60, 60)
    picture[:, 10:50, 5:25] = RED[:, None, None]
    monkeypatch.setitem(sys.modules, "rembg", None)
    found = prepare_condition_image(picture, size=100)
    expected = prepare_condition_image(box_picture(60, 60, (10, 50, 5, 25), RED), size=100)
    assert torch.equal(found.outline, expected.outline)
    inner = (slice(None), slice(14, 86), slice(34, 66))
    torch.testing.assert_close(found.image[inner], expected.image[inner], rtol=0, atol=0.003)
    assert not rembg.asked


def test_what_shows_no_object_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="transparent or of one colour all over"):
        prepare_condition_image(torch.zeros(4, 20, 20))
    with pytest.raises(ValueError, match=r"is 1 x 1 pixels, expected at least 8"):
        prepare_condition_image(box_picture(20, 20, (3, 4, 3, 4), RED))
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match=r"a\.png' is not an image file"):
        prepare_condition_image(tmp_path / "a.png")
    with pytest.raises(ValueError, match="no such file"):
        prepare_condition_image(tmp_path / "b.png")


def test_gigantic_pictures_are_refused(tmp_path: Path):
    Image.new("1", (20_000, 10_000)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="has more than"):
        prepare_condition_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"border": 1.0}, "the border is 1.0, expected 0 to 0.9"),
        ({"border": -0.1}, "the border is -0.1"),
        ({"border": float("nan")}, "the border is nan"),
        ({"cutout": "maybe"}, "'maybe', expected one of: auto, rembg, plain, none"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ImageFraming(**options)


def test_a_size_of_nothing_is_refused():
    with pytest.raises(ValueError, match="is 0, expected at least 1"):
        prepare_condition_image(box_picture(20, 20, (0, 10, 0, 10), RED), size=0)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(1, 8, 8), r"expected \[3, H, W\]"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "floating-point"),
        (torch.full((3, 8, 8), 255.0), "255"),
        (torch.full((3, 8, 8), float("nan")), "NaN"),
    ],
)
def test_bad_tensors_are_refused(image: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        prepare_condition_image(image)


def plain_background(background: Tensor) -> Tensor:
    """``[3, 80, 80]``: a red ring of 40 pixels whose hole has the colour of the background, and grain everywhere."""
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(80.0), indexing="ij")
    radius = torch.hypot(x - 39.5, y - 39.5)
    ring = ((radius < 20) & (radius > 10)).float()
    picture = background[:, None, None] * (1 - ring) + RED[:, None, None] * ring
    grain = torch.rand(3, 80, 80, generator=torch.Generator().manual_seed(0)) - 0.5
    return (picture + 0.04 * grain).clamp(0, 1)


@pytest.mark.parametrize("background", [(1.0, 1.0, 1.0), (0.2, 0.6, 0.3), (0.0, 0.0, 0.0)])
def test_a_plain_background_is_removed_without_a_network(background: tuple[float, float, float]):
    picture = plain_background(torch.tensor(background))
    prepared = prepare_condition_image(picture, size=100, framing=ImageFraming("plain"))
    solid = prepared.alpha[0] > 0.5
    rows = torch.nonzero(solid.any(dim=1)).flatten()
    assert (int(rows[0]), int(rows[-1])) == (10, 89)
    # The hole does not reach the edge: it stays.
    assert float(prepared.alpha[0, 50, 50]) == pytest.approx(1, abs=1e-5)
    assert float(solid.float().sum()) == pytest.approx(np.pi * 40**2, rel=0.03)
    assert bool((prepared.image[:, :5] == 1).all())


def test_a_background_that_is_not_plain_is_refused():
    picture = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"is not plain, only .* of its edge has one colour"):
        prepare_condition_image(picture, framing=ImageFraming("plain"))


def test_framing_is_kept_when_asked():
    picture = box_picture(40, 60, (10, 20, 5, 15), RED)
    prepared = prepare_condition_image(picture, size=60, framing=ImageFraming(keep_framing=True))
    expected = box_picture(60, 60, (20, 30, 5, 15), RED)
    torch.testing.assert_close(prepared.alpha, expected[3:], rtol=0, atol=1e-6)
    half = ImageFraming(keep_framing=True, border=0.5)
    prepared = prepare_condition_image(picture, size=120, framing=half)
    expected = box_picture(120, 120, (50, 60, 35, 45), RED)
    torch.testing.assert_close(prepared.alpha, expected[3:], rtol=0, atol=1e-6)


def test_a_whole_picture_is_made_square():
    square = square_on_white(torch.zeros(3, 10, 5), size=20)
    assert torch.equal(square.alpha[0].sum(dim=0) > 0, torch.arange(20).sub(9.5).abs() < 5)
    assert float(square.image.sum()) == 3 * 20 * 10
