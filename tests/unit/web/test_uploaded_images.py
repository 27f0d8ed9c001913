"""Pictures that clients send: what becomes of good ones, and of hostile ones."""

import base64
import contextlib
import random
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from diffsplat.io.image_files import image_from_pillow
from diffsplat.pipelines.model_opening import OpeningOptions
from diffsplat.web.model_worker import ModelWorker, load_models
from diffsplat.web.server_limits import Limits
from diffsplat.web.uploaded_images import decode_image
from support.api_client import events, sentence
from support.icc_profiles import SRGB_PRIMARIES, rgb_profile
from support.release_folders import build_elevation, build_release

SWAPPED = rgb_profile((SRGB_PRIMARIES[1], SRGB_PRIMARIES[0], SRGB_PRIMARIES[2]), 2.2)
"""Its red is the green of sRGB, and the reverse."""
LIMITS = Limits(max_upload_bytes=300_000, max_pixels=1_000_000)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def disk() -> Image.Image:
    """A red disk, cut out."""
    image = Image.new("RGBA", (96, 64), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((20, 10, 70, 55), fill=(200, 30, 30, 255))
    return image


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelWorker:
    """The released Stable Diffusion 1.5 models, tiny and untrained: from text, a picture, a control map."""
    folder = tmp_path_factory.mktemp("weights")
    build_release(folder, "sd15")
    build_elevation(folder)
    names = ("sd15", "sd15:image", "sd15:canny", "sd15:depth:canny", "sd15:image:depth")
    return load_models(names, OpeningOptions(weights=folder, device="cpu"))


@pytest.fixture
def client(serve, models: ModelWorker):
    return serve(models, max_upload_bytes=LIMITS.max_upload_bytes, max_pixels=LIMITS.max_pixels)


def test_the_catalogue_says_which_model_takes_what(client):
    takes = {model["name"]: model["takes"] for model in client.get("/api/models").json()["models"]}
    assert {name: (entry["image"], entry["control"]) for name, entry in takes.items()} == {
        "sd15": (False, []),
        "sd15:image": (True, []),
        "sd15:canny": (False, ["canny"]),
        "sd15:depth:canny": (False, ["depth", "canny"]),
        "sd15:image:depth": (True, ["depth"]),
    }
    reasons = takes["sd15:image"]["reasons"]
    assert set(reasons) == {"control", "ip_adapter_image"}
    assert reasons["control"].endswith("no control map, unlike sd15:depth, sd15:normal and sd15:canny")
    assert takes["sd15"]["reasons"]["image"].endswith("takes no image, unlike sd15:image")


@pytest.mark.parametrize("kind", ["form", "base64", "data URI"])
@pytest.mark.parametrize(("model", "name"), [("sd15:image", "image"), ("sd15:canny", "control")])
def test_a_picture_becomes_an_object(client, models, kind, model, name):
    options = {"model": model, "prompt": "a red disk", "steps": 1, "seed": 4}
    if kind == "form":
        texts = {key: (None, str(value)) for key, value in options.items()}
        answer = client.post("/api/jobs", files=texts | {name: ("../../x.png", encoded(disk()))})
    else:
        head = "data:image/png;base64," if kind == "data URI" else ""
        text = head + base64.b64encode(encoded(disk())).decode()
        answer = client.post("/api/jobs", json=options | {name: text})
    assert answer.status_code == 201, answer.text
    job = events(client, answer.json()["id"])[-1]
    assert job["state"] == "done", job["error"]
    truth = models.models[model].pipe("a red disk", steps=1, seed=4, **{name: disk()})
    assert job["results"][0]["splats"] == truth.splats[0].visible().count


@pytest.mark.parametrize("kind", ["form", "base64"])
@pytest.mark.parametrize("model", ["sd15:depth:canny", "sd15:image:depth"])
def test_several_images_go_into_one_job(client, models, kind: str, model: str):
    square = Image.new("RGB", (64, 64), "white")
    square.paste("black", (16, 16, 40, 48))
    image, maps = ([], [disk(), square]) if model == "sd15:depth:canny" else ([disk()], [square])
    options = {"model": model, "prompt": "a red disk", "steps": 1, "seed": 4}
    fields = [("image", each) for each in image] + [("control", each) for each in maps]
    if kind == "form":
        files = [(name, ("a.png", encoded(each))) for name, each in fields]
        answer = client.post("/api/jobs", data=options, files=files)
    else:
        texts = {name: base64.b64encode(encoded(each)).decode() for name, each in fields}
        texts["control"] = [base64.b64encode(encoded(each)).decode() for each in maps]
        answer = client.post("/api/jobs", json=options | texts)
    assert answer.status_code == 201, answer.text
    job = events(client, answer.json()["id"])[-1]
    assert job["state"] == "done", job["error"]
    truth = models.models[model].pipe(
        "a red disk", steps=1, seed=4, control=maps, **({"image": image[0]} if image else {})
    )
    assert job["results"][0]["splats"] == truth.splats[0].visible().count
    names = ["image", "control"] if image else ["control", "control-2"]
    assert sorted(job["images"]) == sorted(names)
    last = np.asarray(Image.open(BytesIO(client.get(job["images"][names[1]]).content)))
    assert (last[len(last) // 2, len(last) // 2] == 0).all()  # the square's


def test_a_model_of_two_maps_wants_both(client):
    options = {
        "model": "sd15:depth:canny",
        "prompt": "a chair",
        "control": base64.b64encode(encoded(disk())).decode(),
    }
    answer = client.post("/api/jobs", json=options)
    assert answer.status_code == 422
    assert "the number of control maps is 1, expected 2" in sentence(answer)


def test_the_cut_out_is_centred_on_white(client):
    answer = client.post("/api/cutouts", files={"image": ("disk.png", encoded(disk()))})
    assert answer.headers["content-type"] == "image/png"
    pixels = np.asarray(Image.open(BytesIO(answer.content))).astype(int)
    assert pixels.shape == (256, 256, 3)
    assert (pixels[:10] == 255).all()
    assert (abs(pixels[128, 128] - [200, 30, 30]) <= 1).all()
    rows, columns = np.nonzero(pixels[..., 1] < 128)
    assert abs(rows.mean() - 127.5) < 1
    assert abs(columns.mean() - 127.5) < 1


@pytest.mark.parametrize(
    "text", ["data:image/png,abc", "data:image/png;base64;x,abcd", "data:", "data:;base64,?"]
)
def test_other_data_uris_are_refused(client, text: str):
    answer = client.post("/api/cutouts", json={"image": text})
    assert answer.status_code == 422
    assert "base64" in sentence(answer)


@pytest.mark.parametrize("kind", ["form", "json"])
def test_the_framing_of_a_picture_is_chosen(client, kind: str):
    def columns(**options) -> list[int]:
        if kind == "form":
            texts = {key: (None, str(value)) for key, value in options.items()}
            answer = client.post("/api/cutouts", files=texts | {"image": ("a.png", encoded(disk()))})
        else:
            image = base64.b64encode(encoded(disk())).decode()
            answer = client.post("/api/cutouts", json=options | {"image": image})
        assert answer.status_code == 200, answer.text
        pixels = np.asarray(Image.open(BytesIO(answer.content))).astype(int)
        shown = np.flatnonzero((pixels[..., 1] < 128).any(axis=0))
        return [int(shown[0]), int(shown[-1])]

    assert columns(border=0.5) == [64, 191]
    assert columns(border=0.0) == [0, 255]
    # The disk spans the columns 20 to 70 of 96.
    assert columns(keep_framing=True) == pytest.approx([20 / 96 * 256, 71 / 96 * 256 - 1], abs=1.5)
    assert columns(cutout="plain", border=0.5) == pytest.approx([64, 191], abs=1)


@pytest.mark.parametrize("options", [{"border": 0.95}, {"cutout": "magic"}, {"rembg_model": "u2net"}])
def test_framing_that_is_not_offered_is_refused(client, options: dict):
    image = base64.b64encode(encoded(disk())).decode()
    answer = client.post("/api/cutouts", json=options | {"image": image})
    assert answer.status_code == 422
    sentence(answer)


def test_colour_profiles_of_uploads_are_honoured():
    image = Image.new("RGB", (20, 10), (255, 0, 0))
    decoded = decode_image(encoded(image, icc_profile=SWAPPED), "image", LIMITS)
    red, green, blue = decoded.getpixel((3, 3))  # pyright: ignore[reportGeneralTypeIssues]
    assert (red < 10, green > 245, blue < 10) == (True, True, True)
    # Prepared later on, it stays green.
    assert image_from_pillow(decoded)[:, 3, 3].mul(255).tolist() == [red, green, blue]


def test_a_model_for_pictures_wants_one(client):
    answer = client.post("/api/jobs", json={"model": "sd15:image", "prompt": "a chair"})
    assert answer.status_code == 422
    assert "expected an image" in sentence(answer)


def test_a_cut_out_without_a_model_for_it_is_refused(serve):
    answer = serve().post("/api/cutouts", files={"image": ("disk.png", b"x" * 60_000)})
    assert answer.status_code == 422
    assert "no served model takes an image" in sentence(answer)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"image": (None, "text")}, "image is a text, expected a file"),
        ({"picture": ("a.png", b"x")}, "the file 'picture' is unknown"),
        ({"image": ("a.png", b"")}, "is not an image file in a format that is read (PNG, JPEG, WEBP)"),
        ({}, "form is broken"),
    ],
)
def test_forms_that_hold_no_picture_are_refused(client, files, reason):
    answer = client.post("/api/cutouts", files=files or {"": ("", b"")})
    assert answer.status_code == 422
    if files:
        assert reason in sentence(answer)


def png_of(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that says it is of this size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


BOMB = png_of(100_000, 100_000, zlib.compress(bytes(1000)))
HOSTILE = {
    "no picture": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422),
    "a text": (b"GIF89a", 422),
    "a kind that is not taken": (encoded(disk().convert("RGB"), "BMP"), 422),
    "many pixels in few bytes": (BOMB, 413),
    "more pixels than are allowed": (encoded(Image.new("RGB", (1001, 1000))), 413),
    "too many bytes": (bytes(300_001), 413),
    "cut off": (encoded(disk().convert("RGB").resize((400, 400)), "JPEG")[:2000], 422),
    "nothing after the header": (png_of(64, 64), 422),
    "transparent all over": (encoded(Image.new("RGBA", (64, 64), (9, 9, 9, 0))), 422),
    "no width": (png_of(0, 5), 422),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pictures_are_refused_in_a_sentence(client, name):
    data, status = HOSTILE[name]
    answer = client.post("/api/cutouts", files={"image": ("disk.png", data)})
    assert answer.status_code == status, answer.text
    sentence(answer)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_kind_of_pixel_is_read(mode):
    image = (
        Image.new("I;16", (20, 10), 65535)
        if mode == "I;16"
        else Image.new("RGB", (20, 10), "white").convert(mode)
    )
    decoded = decode_image(encoded(image), "image", LIMITS)
    assert decoded.size == (20, 10)
    assert decoded.convert("RGB").getpixel((3, 3)) == (255, 255, 255)


def test_large_pictures_are_made_smaller_and_cameras_turned_upright():
    image = Image.new("RGB", (3000, 1000), "white")
    exif = Image.Exif()
    exif[0x0112] = 6
    limits = Limits(max_pixels=3_000_000)
    decoded = decode_image(encoded(image, "JPEG", exif=exif.tobytes()), "image", limits)
    assert decoded.size == (683, 2048)
    assert not decoded.info


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damaged_files_are_refused_or_read_and_nothing_else(kind):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 3
    exif[0x010E] = "a description"
    original = encoded(Image.fromarray(noise), kind, exif=exif.tobytes())
    generator = random.Random(0)
    read = 0
    for _ in range(1500):
        damaged = bytearray(original)
        for _ in range(generator.choice((1, 1, 2, 8))):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        if generator.random() < 0.2:
            del damaged[generator.randrange(len(damaged)) :]
        with contextlib.suppress(ValueError):
            picture = decode_image(bytes(damaged), "image", LIMITS)
            assert picture.mode in ("RGB", "RGBA")
            read += 1
    assert 0 < read < 1500


def test_nothing_is_left_in_the_temporary_folder(client, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    answer = client.post("/api/jobs", json={"prompt": "a chair", "steps": 1})
    job = events(client, answer.json()["id"])[-1]
    for suffix in ("ply", "sog", "gif"):
        assert client.get(f"/api/jobs/{job['id']}/results/0.{suffix}").status_code == 200
    assert list(tmp_path.iterdir()) == []
